// The search field: a combobox over GET /items.

import * as api from "./api.js";
import { byId, make, text } from "./dom.js";
import { label, spoken } from "./item.js";
import { add } from "./state.js";

const field = byId("search");
const list = byId("found");
let found = [];
let active = -1;
let asked = null;

export function start() {
  field.addEventListener("input", search);
  field.addEventListener("focus", search);
  field.addEventListener("blur", close);
  field.addEventListener("keydown", press);
  // A press on the list must not move the focus, because that would close the list before the click.
  list.addEventListener("pointerdown", (event) => event.preventDefault());
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) choose([...list.children].indexOf(option));
  });
}

async function search() {
  asked?.abort();
  asked = new AbortController();
  const { signal } = asked;
  try {
    ({ items: found } = await api.find(field.value.trim(), signal));
  } catch (error) {
    if (error.name === "AbortError") return;
    found = [];
    show(`The search failed: ${error.message}`);
    return;
  }
  // The focus may have left the field during the search.
  if (!signal.aborted && document.activeElement === field) show("Nothing found");
}

function show(otherwise) {
  const options = found.map((item, place) =>
    make("li", { role: "option", id: `found-${place}`, "aria-selected": "false" }, ...label(item)));
  list.replaceChildren(...(options.length ? options : [make("li", { class: "hint", role: "presentation" }, otherwise)]));
  list.hidden = false;
  field.setAttribute("aria-expanded", "true");
  point(-1);
}

function close() {
  asked?.abort();
  list.hidden = true;
  field.setAttribute("aria-expanded", "false");
  point(-1);
}

function point(place) {
  active = place;
  [...list.children].forEach((option, other) => {
    if (option.role === "option") option.setAttribute("aria-selected", String(other === place));
  });
  if (place < 0) return field.removeAttribute("aria-activedescendant");
  field.setAttribute("aria-activedescendant", `found-${place}`);
  list.children[place].scrollIntoView({ block: "nearest" });
}

function choose(place) {
  if (!found[place] || list.hidden) return;
  add(found[place]);
  text("announce", `${spoken(found[place])} added`);
  field.value = "";
  close();
}

function press(event) {
  const steps = { ArrowDown: 1, ArrowUp: -1 };
  if (event.key in steps && found.length) {
    event.preventDefault();
    if (list.hidden) return search();
    point((active + steps[event.key] + found.length + (active < 0 && event.key === "ArrowUp" ? 1 : 0)) % found.length);
  } else if (event.key === "Enter") {
    event.preventDefault();
    choose(Math.max(active, 0));
  } else if (event.key === "Escape" && !list.hidden) {
    event.preventDefault();
    close();
  }
}
