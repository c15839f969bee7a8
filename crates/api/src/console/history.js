// The user's items, oldest first. Buttons, or keys on them, move and remove items.

import * as api from "./api.js";
import { byId, make, text } from "./dom.js";
import { heads, label, spoken } from "./item.js";
import { change, move, onChange, remove, state } from "./state.js";

const list = byId("history");

// The example is one of some histories of popular items, which every model knows: the first one whose answer saves
// enough, or else the one that saves most.
const TRIES = 12;
const LENGTH = 8;
const SAVES = 0.5;

let opened = false;

export function start() {
  onChange(show);
  byId("clear").addEventListener("click", () => {
    change({ history: [] });
    // In the search field the focus would open the list, which covers this button.
    byId("example").focus();
  });
  byId("example").addEventListener("click", () =>
    example().catch((problem) => text("announce", `No example: ${problem.message}`)));
  show();
}

// Shows the example when the page opens.
export async function open() {
  if (opened) return;
  opened = true;
  // Without an example the page still shows what is popular.
  if (state.history.length === 0) await example().catch(() => {});
}

async function example() {
  const { items } = await api.find("");
  const length = Math.min(LENGTH, items.length);
  // Steps that share no factor with 20, the number of items found, give different items.
  const steps = [1, 3, 7, 9, 11, 13];
  const draw = (tried, place) => items[(5 * tried + steps[tried % steps.length] * place) % items.length];
  const histories = Array.from({ length: TRIES }, (_, tried) =>
    [...new Set(Array.from({ length }, (_, place) => draw(tried, place)))]);
  const { results } = await api.recommendMany(histories.map((history) => ({ history: history.map(({ item }) => item), k: 1 })));
  const saved = results.map(({ compute }) => compute?.saved ?? -1);
  const enough = saved.findIndex((share) => share >= SAVES);
  // Somebody may have chosen items meanwhile.
  if (state.history.length === 0) change({ history: histories[enough >= 0 ? enough : saved.indexOf(Math.max(...saved))] });
}

function show() {
  const { history } = state;
  list.replaceChildren(...history.map(entry));
  text("history-count", history.length ? String(history.length) : "");
  heads("history", history);
  byId("history-hint").hidden = history.length > 0;
  byId("example").hidden = history.length > 0;
  byId("clear").hidden = history.length === 0;
}

function entry(item, place) {
  const name = spoken(item);
  const button = (sign, verb, run, disabled) =>
    make("button", { type: "button", class: "icon", "aria-label": `${verb}: ${name}`, title: verb, disabled, onclick: run },
      sign);
  const shift = (by) => () => {
    const to = move(place, by);
    // The list was rebuilt. The focus follows the item, to a button that is not disabled.
    const buttons = list.children[to].querySelectorAll("button");
    const same = buttons[by < 0 ? 0 : 1];
    (same.disabled ? buttons[by < 0 ? 1 : 0] : same).focus();
  };
  const drop = () => {
    remove(place);
    const next = list.children[Math.min(place, list.children.length - 1)];
    (next ? next.querySelector("button:last-child") : byId("search")).focus();
  };
  return make("li", { class: "item" },
    make("span", { class: "rank mono" }, String(place + 1)),
    ...label(item),
    make("span", { class: "buttons" },
      button("↑", "Move up", shift(-1), place === 0),
      button("↓", "Move down", shift(1), place === state.history.length - 1),
      button("×", "Remove", drop, false)));
}
