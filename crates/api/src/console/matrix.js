// Shows routes as small tables: one for each width, with a row for each depth and a column for each embedding of that width.

import { make } from "./dom.js";

// Fills `container` with a table for each width. `cell` makes the content for a route.
export function tables(container, routes, cell) {
  const sizes = (part, among = routes) => [...new Set(among.map((route) => route[part]))].sort((a, b) => a - b);
  const depths = sizes("layers");
  const at = new Map(routes.map((route) => [`${route.hidden} ${route.layers} ${route.embedding}`, route]));
  container.replaceChildren(...sizes("hidden").map((hidden) => {
    const embeddings = sizes("embedding", routes.filter((route) => route.hidden === hidden));
    return make("table", {},
      make("caption", {}, `width ${hidden}`),
      make("thead", {}, make("tr", {},
        make("th", { class: "corner" }, make("span", { class: "hidden-text" }, "layers")),
        ...embeddings.map((size) => make("th", { scope: "col", title: `embedding ${size}` }, `e${size}`)))),
      make("tbody", {}, ...depths.map((layers) => make("tr", {},
        make("th", { scope: "row", title: `${layers} layers` }, `l${layers}`),
        ...embeddings.map((embedding) => make("td", {}, cell(at.get(`${hidden} ${layers} ${embedding}`))))))));
  }));
}
