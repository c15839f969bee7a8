// Shows an item.

import { byId, make } from "./dom.js";

// An item's title and id, or only its id.
export function label({ item, title }) {
  return [make("span", { class: "title" }, title ?? `Item ${item}`), make("span", { class: "id mono", hidden: title === undefined }, item)];
}

// An item's name for labels and screen readers.
export const spoken = ({ item, title }) => title ?? `item ${item}`;

// Shows the headings of a list of items, without the one of ids if the ids stand in the place of titles.
export function heads(list, items) {
  const head = byId(`${list}-head`);
  head.hidden = items.length === 0;
  head.classList.toggle("untitled", items.every(({ title }) => title === undefined));
}
