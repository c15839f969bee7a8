// The live panel scrapes /metrics, as Prometheus does, and shows recent traffic.

import * as api from "./api.js";
import { chart } from "./charts.js";
import { byId, make, text } from "./dom.js";
import * as format from "./format.js";
import { tables } from "./matrix.js";
import * as scrapes from "./scrape.js";

const EVERY_MS = 2000;
// Time span of the charts.
const CHART_SECONDS = 180;
// Time span of quantiles, shares and batches.
const WINDOW_SECONDS = 60;
// Rates use a shorter span, so that they follow quickly.
const RATE_SECONDS = 10;

const latency = "request_duration_seconds";
const FAMILIES = [
  "batch_size_bucket", "batch_size_count", "candidate_share", "executed_flops_total", "full_flops_total",
  "history_cache_hits_total", "history_cache_misses_total", "hits_total", "judged_total", "model_info", "queue_depth",
  "rejected_total", `${latency}_bucket`, `${latency}_count`, "requests_in_flight", "requests_total", "route_requests_total",
  "reused_flops_total", "router_flops_total",
];

// The endpoints that recommend: a slow reload is no slow recommendation.
const RECOMMENDS = /^(\/recommend.*|.+\/infer|.+\/Recommend.*|.+\/ModelInfer)$/;
const recommends = ({ endpoint }) => endpoint === undefined || RECOMMENDS.test(endpoint);

// The scrapes of the window, oldest first.
const kept = [];
const points = { times: [], rate: [], p50: [], p99: [] };
let charts = null;
let cells = new Map();
let timer = 0;

// After each scrape, calls `seen` with the labels of the model that serves and its candidate, or with the problem.
export function start(seen) {
  charts = {
    rate: chart(byId("rate-chart"), byId("rate-reading"), [{ label: "", colour: "--accent" }], format.rate, CHART_SECONDS),
    latency: chart(byId("latency-chart"), byId("latency-reading"),
      [{ label: "p50", colour: "--accent" }, { label: "p99", colour: "--warm" }], format.rate, CHART_SECONDS),
  };
  const next = async () => {
    await poll(seen);
    clearTimeout(timer);
    // A hidden page does not poll.
    if (!document.hidden) timer = setTimeout(next, EVERY_MS);
  };
  document.addEventListener("visibilitychange", () => document.hidden || next());
  next();
}

// Shows the routes of a model.
export function take({ routes }) {
  cells = new Map();
  tables(byId("heat"), routes, ({ name }) => {
    const cell = make("span", { class: "cell mono", title: name });
    cells.set(name, cell);
    return cell;
  });
  if (kept.length) heat();
}

async function poll(seen) {
  try {
    const scrape = scrapes.parse(await api.metrics(), Date.now() / 1000, FAMILIES, recommends);
    const last = kept.at(-1);
    // A restarted server counts from zero, so earlier scrapes are useless.
    if (last && scrapes.sum(scrape, "requests_total") < scrapes.sum(last, "requests_total")) kept.length = 0;
    kept.push(scrape);
    while (kept[1]?.time <= scrape.time - WINDOW_SECONDS) kept.shift();
    show();
    const model = scrapes.info(scrape, "model_info");
    seen(model && { ...model, candidate: candidate(scrape) }, null);
  } catch (problem) {
    seen(null, problem);
  }
}

// The candidate as `/model` has it, or null.
function candidate(scrape) {
  const labels = scrapes.info(scrape, "candidate_share");
  return labels && { ...labels, share: scrapes.sum(scrape, "candidate_share") };
}

// The scrape from the given number of seconds ago, or the oldest.
function since(seconds) {
  const now = kept.at(-1).time;
  return kept.findLast(({ time }) => time <= now - seconds) ?? kept[0];
}

// The scrape to count shares from. Without recent traffic it is null, which means the server's start.
function past(name) {
  const before = since(WINDOW_SECONDS);
  return scrapes.growth(before, kept.at(-1), name) > 0 ? before : null;
}

const span = (before) => (before ? "last minute" : "since the start");

function show() {
  const now = kept.at(-1);
  const recent = since(RATE_SECONDS);
  const seconds = now.time - recent.time;
  const perSecond = (name) => (seconds > 0 ? scrapes.growth(recent, now, name) / seconds : null);
  const before = past(`${latency}_count`);
  const histogram = scrapes.buckets(before, now, latency);
  const ms = (share) => inMilliseconds(scrapes.quantile(histogram, share));
  text("tile-window", `Rates of the last ${RATE_SECONDS} s; latency and saving ${span(before)}`);
  text("rate", format.rate(perSecond("requests_total")));
  text("refused", format.rate(perSecond("rejected_total")));
  text("p50", format.milliseconds(ms(0.5)));
  text("p99", format.milliseconds(ms(0.99)));
  text("queue", format.count(scrapes.sum(now, "queue_depth")));
  text("in-flight", format.count(scrapes.sum(now, "requests_in_flight")));
  text("live-saved", format.percent(saved()));
  text("cache-hits", format.percent(cacheHits()));
  lines();
  heat();
  accuracy();
  batches();
}

const inMilliseconds = (seconds) => (seconds === null ? null : seconds * 1000);

// The share of the full model's cost that routing saved. Padding and the router count as cost.
function saved() {
  const [before, now] = [past("full_flops_total"), kept.at(-1)];
  const grown = (name) => scrapes.growth(before, now, name);
  const full = grown("full_flops_total");
  // What the history cache had counts as computed: routing did not save it.
  const spent = ["executed_flops_total", "reused_flops_total", "router_flops_total"].map(grown);
  return full > 0 ? 1 - spent.reduce((sum, flops) => sum + flops) / full : null;
}

// The share of the rows that reused a history. Null without the cache.
function cacheHits() {
  const [before, now] = [since(WINDOW_SECONDS), kept.at(-1)];
  const [hits, misses] = ["history_cache_hits_total", "history_cache_misses_total"].map((name) =>
    scrapes.growth(before, now, name) || scrapes.sum(now, name));
  return hits + misses > 0 ? hits / (hits + misses) : null;
}

// Routes whose answers were judged most often.
const JUDGED_ROUTES = 8;

function accuracy() {
  const now = kept.at(-1);
  const [judged, hits] = ["judged_total", "hits_total"].map((name) => scrapes.growthBy(null, now, name, "route"));
  const [all, found] = ["judged_total", "hits_total"].map((name) => scrapes.sum(now, name));
  text("hit-rate", format.percent(all > 0 ? found / all : null));
  byId("accuracy-hint").hidden = all > 0;
  const shown = [...judged].filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a).slice(0, JUDGED_ROUTES);
  const rate = ([route, count]) => (hits.get(route) ?? 0) / count;
  const most = Math.max(...shown.map(rate), 0.01);
  byId("accuracy").replaceChildren(...shown.map((entry) => {
    const bar = make("span", { class: "bar-fill" });
    bar.style.setProperty("--share", rate(entry) / most);
    return make("li", {}, make("span", { class: "bar-name mono" }, entry[0]), make("span", { class: "bar-track" }, bar),
      make("span", { class: "bar-count mono" }, `${format.percent(rate(entry))} of ${format.count(entry[1])}`));
  }));
}

function lines() {
  const [before, now] = kept.slice(-2);
  if (!now) return;
  const histogram = scrapes.buckets(before, now, latency);
  points.times.push(now.time);
  points.rate.push(scrapes.growth(before, now, "requests_total") / (now.time - before.time));
  points.p50.push(inMilliseconds(scrapes.quantile(histogram, 0.5)));
  points.p99.push(inMilliseconds(scrapes.quantile(histogram, 0.99)));
  while (points.times[0] < now.time - CHART_SECONDS) Object.values(points).forEach((column) => column.shift());
  const { times, rate, p50, p99 } = points;
  charts.rate.show(times, [rate], `Requests per second, now ${format.rate(rate.at(-1))}`);
  charts.latency.show(times, [p50, p99],
    `Latency, now p50 ${format.milliseconds(p50.at(-1))}, p99 ${format.milliseconds(p99.at(-1))}`);
}

function heat() {
  const before = past("route_requests_total");
  const rows = scrapes.growthBy(before, kept.at(-1), "route_requests_total", "route");
  const total = [...rows.values()].reduce((sum, count) => sum + count, 0);
  const most = Math.max(...rows.values(), 1);
  text("heat-window", `% of rows, ${span(before)}`);
  for (const [name, cell] of cells) {
    const count = rows.get(name) ?? 0;
    cell.style.setProperty("--heat", count / most);
    cell.textContent = count ? format.cell(count / total) : "";
    cell.title = `${name}: ${format.count(count)} rows`;
  }
}

function batches() {
  const before = past("batch_size_count");
  const sizes = scrapes.buckets(before, kept.at(-1), "batch_size");
  const most = Math.max(...sizes.map(({ count }) => count), 1);
  text("batch-window", `batches, ${span(before)}`);
  // Up to the largest batch size that occurred.
  const seen = sizes.slice(0, Math.max(sizes.findLastIndex(({ count }) => count > 0) + 1, 4));
  byId("batches").replaceChildren(...seen.map(({ above, upTo, count }) => {
    const name = upTo === Infinity ? `>${above}` : above + 1 >= upTo ? `${upTo}` : `${above + 1}–${upTo}`;
    const bar = make("span", { class: "bar-fill" });
    bar.style.setProperty("--share", count / most);
    return make("li", {}, make("span", { class: "bar-name mono" }, name), make("span", { class: "bar-track" }, bar),
      make("span", { class: "bar-count mono" }, format.count(count)));
  }));
}
