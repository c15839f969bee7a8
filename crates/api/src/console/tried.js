// Compares the routes tried for one user with the answer on the page.

import { byId, make } from "./dom.js";
import * as format from "./format.js";

const KEPT = 6;

let trials = [];

// Adds an answer. `first` tells that it is the first for its user.
export function take(answer, took, first) {
  const { name, reason } = answer.route;
  if (first) trials = [];
  if (name) {
    // A repeated choice replaces its previous answer.
    trials = trials.filter(({ route }) => route.name !== name || route.reason !== reason);
    trials.unshift({ ...answer, took });
    trials.length = Math.min(trials.length, KEPT);
  }
  byId("tried-panel").hidden = trials.length < 2;
  byId("tried").replaceChildren(...trials.map((trial) => row(trial, trials[0])));
}

function row({ items, route, compute, took }, shown) {
  const here = new Set(shown.items.map(({ item }) => item));
  const same = items.filter(({ item }) => here.has(item)).length;
  const by = { router: "router", override: "you", degraded: "server", fixed: "server", explored: "chance" }[route.reason];
  const values = [route.name, by, format.flops(compute.flops), format.percent(compute.saved),
    format.milliseconds(took), `${same}/${items.length}`];
  return make("tr", {}, ...values.map((value, column) => make("td", { class: ["mono", "", "roomy", "", "roomy", ""][column] }, value)));
}
