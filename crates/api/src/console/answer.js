// Asks for recommendations whenever a choice changes and shows the answer: items, route and cost, and how a change of
// route or budget affected them.

import * as api from "./api.js";
import { byId, make, text } from "./dom.js";
import * as format from "./format.js";
import * as routes from "./routes.js";
import { heads, label, spoken } from "./item.js";
import { add, change, onChange, state } from "./state.js";
import * as tried from "./tried.js";

const list = byId("items");
let asked = null;
// The request and answer on the page.
let shown = null;

// Rapid changes, as of a moving slider, make one request.
const PAUSE_MS = 40;
let pause = 0;

export function start() {
  onChange(() => {
    clearTimeout(pause);
    pause = setTimeout(ask, PAUSE_MS);
  });
  byId("k").addEventListener("change", (event) => change({ k: Number(event.target.value) }));
}

export async function ask() {
  asked?.abort();
  asked = new AbortController();
  const { signal } = asked;
  const { history, k, route, budget } = state;
  const ids = history.map(({ item }) => item);
  const body = { history: ids, k: Math.min(k, routes.itemCount()), route, ...(budget === null ? {} : { budget }) };
  try {
    const { answer, took } = await api.recommend(body, signal);
    if (!signal.aborted) show({ user: JSON.stringify([ids, k]), answer, took });
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  }
}

function fail(error) {
  text("answer-note", `No answer: ${error.message}.`);
  byId("answer-note").classList.add("bad");
}

function show({ user, answer, took }) {
  // Answers can be compared only for the same history.
  const before = shown?.user === user ? shown.answer : null;
  shown = { user, answer };
  tried.take(answer, took, before === null);
  const places = before && new Map(before.items.map(({ item }, place) => [item, place]));
  const scores = answer.items.map(({ score }) => score);
  // Counts of a cold start have a zero, scores of the model have none.
  const cold = answer.route.reason === "cold_start";
  const span = { low: cold ? 0 : Math.min(...scores), high: Math.max(...scores), least: cold ? 0 : 0.06 };
  heads("items", answer.items);
  text("score-head", cold ? "count" : "score");
  list.replaceChildren(...answer.items.map((item, place) => entry(item, place, span, places)));

  const { name, reason, confidence } = answer.route;
  const { used, unknown } = answer.history;
  const left = state.history.length - unknown.length - used;
  const notes = [
    reason === "cold_start" ? "By popularity: how often each item is in the training data." : "",
    unknown.length ? `Not in this model: ${unknown.join(", ")}.` : "",
    left > 0 ? `The model reads the last ${used} items.` : "",
    answer.items.length ? "" : "No item is left to recommend.",
  ];
  text("answer-note", notes.filter(Boolean).join(" "));
  byId("answer-note").classList.remove("bad");

  text("route-name", name ?? "no route");
  text("route-reason", why(reason, confidence));
  const { flops, full_flops: full, saved } = answer.compute;
  text("cost", name ? format.flops(flops) : format.none);
  text("full-cost", name ? format.flops(full) : format.none);
  text("saved", name ? format.percent(saved) : format.none);
  text("took", format.milliseconds(took));
  const meter = byId("cost-meter");
  meter.style.setProperty("--share", name ? Math.min(flops / full, 1) : 0);
  meter.setAttribute("aria-label", name ? `${format.percent(flops / full)} of the full model's cost` : "Nothing ran");
  text("change", before ? difference(before, answer) : "");
  routes.light(name, confidence);
}

function why(reason, confidence) {
  switch (reason) {
    case "router": return `Chosen by the router, confidence ${format.percent(confidence)}`;
    case "degraded": return "The server is overloaded: the best route that it can afford now";
    case "fixed": return "The server runs it for every request; the router did not run";
    case "explored": return "Drawn at random: the server compares its routes";
    case "override": return "Named by you; the router did not run";
    default: return "No known item in the history: no route runs";
  }
}

// One line about the effect of another route or budget.
function difference(before, after) {
  const [was, is] = [before, after].map((answer) => answer.route.name);
  if (was === is || !was || !is) return "";
  const kept = new Set(before.items.map(({ item }) => item));
  const common = after.items.filter(({ item }) => kept.has(item)).length;
  const ratio = after.compute.flops / before.compute.flops;
  const cost = ratio < 1 ? `${format.percent(1 - ratio)} cheaper` : `${format.rate(ratio)} times the cost`;
  return `${was} → ${is}: ${cost}, ${common} of ${after.items.length} items as before`;
}

function entry(item, place, { low, high, least }, places) {
  const bar = make("span", { class: "bar-fill" });
  bar.style.setProperty("--share", high > low ? least + (1 - least) * (item.score - low) / (high - low) : 1);
  const name = spoken(item);
  return make("li", { class: "item" },
    make("button", { type: "button", class: "pick", title: "Add to the history", onclick: () => add(item),
      "aria-label": `${name}, score ${format.score(item.score)}: add to the history` },
      make("span", { class: "rank mono" }, String(place + 1)),
      ...label(item),
      shift(places, item.item, place),
      make("span", { class: "score mono" }, format.score(item.score)),
      bar));
}

// How far an item rose or fell since the previous answer.
function shift(places, item, place) {
  if (!places) return "";
  const before = places.get(item);
  if (before === undefined) return make("span", { class: "shift new" }, "new");
  if (before === place) return "";
  const by = before - place;
  return make("span", { class: by > 0 ? "shift up" : "shift down" }, `${by > 0 ? "▲" : "▼"}${Math.abs(by)}`);
}
