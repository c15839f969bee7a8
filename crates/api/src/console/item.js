// How an item is shown.

import { make } from "./dom.js";

// An item's title and id, or its id alone.
export function label({ item, title }) {
  return [make("span", { class: "title" }, title ?? `Item ${item}`), make("span", { class: "id mono", hidden: title === undefined }, item)];
}

// What it is called in words: in a label, or when it is read aloud.
export const spoken = ({ item, title }) => title ?? `item ${item}`;
