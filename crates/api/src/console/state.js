// The user's choices. Views listen for "change".

export const state = {
  // {item, title}, oldest first.
  history: [],
  k: 10,
  // "auto", "smallest", "full" or a route's name.
  route: "auto",
  // Share of the full model's FLOPs. Null means the server's budget.
  budget: null,
};

const changes = new EventTarget();

export function onChange(listener) {
  changes.addEventListener("change", listener);
}

export function change(parts) {
  Object.assign(state, parts);
  changes.dispatchEvent(new Event("change"));
}

export const add = (item) => change({ history: [...state.history, item] });

export const remove = (place) => change({ history: state.history.filter((_, other) => other !== place) });

// Swaps an item with its neighbour. At an end it does nothing.
export function move(place, by) {
  const history = [...state.history];
  const to = place + by;
  if (to < 0 || to >= history.length) return place;
  [history[place], history[to]] = [history[to], history[place]];
  change({ history });
  return to;
}
