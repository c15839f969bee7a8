// Reads the Prometheus text format of /metrics and computes the changes between two scrapes.

const LINE = /^canet_(\w+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// A scrape: for each family in `names` a list of {key, labels, value}, and the time in seconds. `key` is the text of the
// labels. Other families, and series whose labels `keep` refuses, are dropped: a scrape has thousands of series.
export function parse(scrape, time, names, keep) {
  const families = new Map(names.map((name) => [name, []]));
  for (const line of scrape.split("\n")) {
    const [, name, labels, value] = LINE.exec(line) ?? [];
    if (!families.has(name)) continue;
    const byName = Object.fromEntries([...(labels ?? "").matchAll(LABEL)].map(([, key, text]) =>
      [key, text.replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped))]));
    if (keep(byName)) families.get(name).push({ key: labels ?? "", labels: byName, value: Number(value) });
  }
  return { time, families };
}

const series = (scrape, name) => scrape?.families.get(name) ?? [];

// The sum over a family's series.
export function sum(scrape, name) {
  return total(series(scrape, name));
}

const total = (list) => list.reduce((sum, { value }) => sum + value, 0);

export const info = (scrape, name) => series(scrape, name)[0]?.labels ?? null;

// The growth of each series of a counter since `before`. A series that is new, or smaller because the server restarted,
// counts in full. The sum over all series would not do: a reload can remove series.
function grown(before, after, name) {
  const old = new Map(series(before, name).map(({ key, value }) => [key, value]));
  return series(after, name).map(({ key, labels, value }) => {
    const was = old.get(key) ?? 0;
    return { labels, value: value >= was ? value - was : value };
  });
}

// The growth of a counter, over all its series.
export function growth(before, after, name) {
  return total(grown(before, after, name));
}

// The growth of a counter for each value of a label.
export function growthBy(before, after, name, label) {
  const sums = new Map();
  for (const { labels, value } of grown(before, after, name)) {
    sums.set(labels[label], (sums.get(labels[label]) ?? 0) + value);
  }
  return sums;
}

// The counts in a histogram's buckets (not cumulative), over all its series: [{above, upTo, count}].
export function buckets(before, after, name) {
  const cumulative = [...growthBy(before, after, `${name}_bucket`, "le")]
    .map(([le, count]) => ({ upTo: le === "+Inf" ? Infinity : Number(le), count }))
    .sort((a, b) => a.upTo - b.upTo);
  return cumulative.map(({ upTo, count }, place) => ({
    above: place ? cumulative[place - 1].upTo : 0,
    upTo,
    count: count - (place ? cumulative[place - 1].count : 0),
  }));
}

// The quantile of a histogram, interpolated within its bucket as Prometheus does. Null without observations.
export function quantile(histogram, share) {
  const total = histogram.reduce((sum, { count }) => sum + count, 0);
  let rest = share * total;
  if (total === 0) return null;
  for (const { above, upTo, count } of histogram) {
    if (count >= rest && count > 0) return upTo === Infinity ? above : above + (upTo - above) * (rest / count);
    rest -= count;
  }
  return histogram.at(-1).above;
}
