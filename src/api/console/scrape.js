// Reads the Prometheus text format of /metrics, and what happened between two scrapes.

const LINE = /^canet_(\w+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// A scrape: for each of the families that are asked for a list of {labels, value}, with the time in seconds at which it
// was read. A scrape has thousands of series; what is not asked for is not kept.
export function parse(scrape, time, names) {
  const families = new Map(names.map((name) => [name, []]));
  for (const line of scrape.split("\n")) {
    const [, name, labels, value] = LINE.exec(line) ?? [];
    if (!families.has(name)) continue;
    families.get(name).push({ labels: Object.fromEntries([...(labels ?? "").matchAll(LABEL)].map(([, key, text]) =>
      [key, text.replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped))])), value: Number(value) });
  }
  return { time, families };
}

const series = (scrape, name) => scrape?.families.get(name) ?? [];

// The sum of a family's series, by a label where one is given.
export function sum(scrape, name) {
  return series(scrape, name).reduce((total, { value }) => total + value, 0);
}

export function by(scrape, name, label) {
  const sums = new Map();
  for (const { labels, value } of series(scrape, name)) sums.set(labels[label], (sums.get(labels[label]) ?? 0) + value);
  return sums;
}

export const info = (scrape, name) => series(scrape, name)[0]?.labels ?? null;

// What a counter grew by since `before`; all of it where there is no `before`, or the server began anew.
export function growth(before, after, name) {
  return difference(sum(after, name), sum(before, name));
}

export function growthBy(before, after, name, label) {
  const old = by(before, name, label);
  return new Map([...by(after, name, label)].map(([key, value]) => [key, difference(value, old.get(key) ?? 0)]));
}

function difference(after, before) {
  return after >= before ? after - before : after;
}

// A histogram's counts of its own buckets (not cumulative), over all its series: [{above, upTo, count}].
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

// The value below which a share of the observations lies, linear within its bucket as Prometheus has it; null where
// nothing was observed.
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
