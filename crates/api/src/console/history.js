// The user's items, oldest first. Buttons, or keys on them, move and remove items.

import * as api from "./api.js";
import { byId, make, text } from "./dom.js";
import { label, spoken } from "./item.js";
import { change, move, onChange, remove, state } from "./state.js";

const list = byId("history");

// The items of the example: the most popular ones, which every model knows.
const EXAMPLE = 3;

export function start() {
  onChange(show);
  byId("clear").addEventListener("click", () => {
    change({ history: [] });
    byId("search").focus();
  });
  byId("example").addEventListener("click", async () => {
    try {
      const { items } = await api.find("");
      change({ history: items.slice(0, EXAMPLE) });
    } catch (problem) {
      text("announce", `No example: ${problem.message}`);
    }
  });
  show();
}

function show() {
  const { history } = state;
  list.replaceChildren(...history.map(entry));
  text("history-count", history.length ? String(history.length) : "");
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
