// Shows the routes to pin, the choice between router and fixed route, and the budget.

import { byId, make, text } from "./dom.js";
import * as format from "./format.js";
import { tables } from "./matrix.js";
import { change, onChange, state } from "./state.js";

const grid = byId("routes");
const budget = byId("budget");
const deciders = [...document.querySelectorAll("[data-route]")];
let cells = new Map();
let columns = 1;
// {default, points} of the model that serves, or null without a calibration.
let calibrated = null;
// The route that the server runs for every request that names none, or null.
let fixed = null;
// The route that every calibrated budget runs, or null.
let only = null;
let items = 1;

export const itemCount = () => items;

export function start() {
  grid.addEventListener("keydown", walk);
  grid.addEventListener("click", ({ target }) => {
    const name = target.closest("button")?.dataset.name;
    if (name) change({ route: state.route === name ? "auto" : name });
  });
  deciders.forEach((button) => button.addEventListener("click", () => change({ route: button.dataset.route })));
  budget.addEventListener("input", () => change({ budget: Number(budget.value) / 100 }));
  byId("budget-reset").addEventListener("click", () => {
    change({ budget: null });
    budget.focus();
  });
  onChange(show);
}

// Shows the routes and the calibration of a model.
export function take(model, { routes, full_flops: full }) {
  items = model.config.items;
  calibrated = model.budget;
  fixed = model.fixed_route;
  const names = new Set(calibrated?.points.map(({ route }) => route ?? null));
  only = names.size === 1 ? [...names][0] : null;
  // Above the last calibrated budget the router spends no more.
  budget.max = String(Math.ceil(100 * (calibrated?.points.at(-1)?.budget ?? 1)));
  columns = new Set(routes.filter((route) => route.hidden === routes[0].hidden).map((route) => route.embedding)).size;
  cells = new Map();
  tables(grid, routes, (route) => {
    const share = route.flops / full;
    const button = make("button", { type: "button", class: "cell mono", tabindex: -1, "aria-pressed": "false",
      "data-name": route.name, title: `${route.name}: ${format.flops(route.flops)}`,
      "aria-label": `${route.name}, ${format.percent(share)} of the full model's FLOPs` }, format.cell(share));
    button.style.setProperty("--share", share);
    cells.set(route.name, button);
    return button;
  });
  [...cells.values()][0].tabIndex = 0;
  // Another model may lack the pinned route.
  if (!cells.has(state.route) && !deciders.some((button) => button.dataset.route === state.route)) {
    change({ route: "auto" });
  }
  show();
}

// Highlights the route that ran.
export function light(name, confidence) {
  for (const [route, cell] of cells) {
    const lit = route === name;
    cell.classList.toggle("lit", lit);
    if (lit) cell.setAttribute("aria-current", "true");
    else cell.removeAttribute("aria-current");
    cell.querySelector("small")?.remove();
    if (lit && confidence !== null) cell.append(make("small", { title: "confidence" }, confidence.toFixed(2)));
  }
}

function show() {
  for (const [name, cell] of cells) cell.setAttribute("aria-pressed", String(name === state.route));
  deciders.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.route === state.route)));
  const decides = state.route === "auto" && fixed === null && only === null;
  const value = state.budget ?? calibrated?.default ?? null;
  budget.disabled = !calibrated || !decides;
  if (value !== null) budget.value = String(Math.round(value * 100));
  text("budget-value", calibrated ? `${budget.value} % of the full model` : "");
  byId("budget-reset").hidden = state.budget === null || !decides;
  text("budget-hint", hint(decides));
}

function hint(decides) {
  if (state.route === "auto" && fixed !== null) return `The server runs ${fixed} for all requests: no router, no budget.`;
  if (state.route === "auto" && only !== null) return `Every budget runs ${only}: the router is not shown to gain on these data.`;
  if (!decides) return `${cells.has(state.route) ? `${state.route} is pinned` : "You named the route"}: no router, no budget.`;
  if (!calibrated) return "This model was not calibrated for budgets: the router's first choice runs.";
  return state.budget === null
    ? "The server's budget. Move the slider to ask for cheaper or dearer answers on average."
    : "On average over users, as calibrated on validation data.";
}

// Arrow keys move between cells, across all tables as if they were one.
function walk(event) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const step = steps[event.key];
  const from = event.target.closest("button");
  if (!step || !from) return;
  event.preventDefault();
  const [across, down] = step;
  const widths = [...grid.querySelectorAll("table")].map((table) => [...table.tBodies[0].rows]);
  const table = from.closest("table");
  const row = from.closest("tr").sectionRowIndex + down;
  const column = [...grid.children].indexOf(table) * columns + from.closest("td").cellIndex - 1 + across;
  const to = widths[Math.floor(column / columns)]?.[row]?.cells[(column % columns) + 1]?.firstChild;
  if (!to) return;
  from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}
