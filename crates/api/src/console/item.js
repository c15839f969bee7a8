// Shows an item.

import { make } from "./dom.js";

// An item's title and id, or only its id.
export function label({ item, title }) {
  return [make("span", { class: "title" }, title ?? `Item ${item}`), make("span", { class: "id mono", hidden: title === undefined }, item)];
}

// An item's name for labels and screen readers.
export const spoken = ({ item, title }) => title ?? `item ${item}`;
