// Histories: never one constant body. Either drawn from the server's catalogue, or real ones out of a file.
//
// Drawn: the length is log-uniform between the bounds (many short histories, few long ones), the items are independent,
// with a popularity after Zipf's law (exponent 1) over a shuffled catalogue. Such users have no taste, so the router's
// choices for them say nothing about real traffic: give a file where shares of routes matter.

import { SharedArray } from 'k6/data';
import { logUniform, weighted, zipfWeights } from './random.js';

/** Histories of a file, or an empty list where none is named. */
export function recorded(path) {
  return new SharedArray('histories', () => (path ? parse(open(path), path) : []));
}

/** RecBole's `.inter` (a header names the columns), or lines `user item item ...`. */
function parse(text, path) {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  const ofUser = (line) => line.trim().split(/\s+/).slice(1);
  const histories = lines[0].includes(':') ? ofInteractions(lines) : lines.map(ofUser);
  const kept = histories.filter((history) => history.length > 0);
  if (kept.length === 0) throw new Error(`${path} holds no history`);
  return kept;
}

function ofInteractions(lines) {
  const columns = lines[0].split('\t').map((column) => column.split(':')[0]);
  const [user, item, time] = ['user_id', 'item_id', 'timestamp'].map((name) => columns.indexOf(name));
  const users = new Map();
  for (const line of lines.slice(1)) {
    const fields = line.split('\t');
    if (!users.has(fields[user])) users.set(fields[user], []);
    users.get(fields[user]).push([Number(fields[time]), fields[item]]);
  }
  return Array.from(users.values(), (events) => events.sort((a, b) => a[0] - b[0]).map((event) => event[1]));
}

/** Returns a function that makes the next request's history, of `shortest` to `longest` items, as `{ history }`. */
export function historySource(items, shortest, longest, files) {
  if (files.length > 0) {
    // A user at some point of his life: what he did up to then.
    return () => {
      const history = files[Math.floor(Math.random() * files.length)];
      const end = Math.min(history.length, logUniform(shortest, Math.max(shortest, history.length)));
      return { history: history.slice(Math.max(0, end - longest), end) };
    };
  }
  const draw = weighted(zipfWeights(items.length, 1));
  return () => ({ history: Array.from({ length: logUniform(shortest, longest) }, () => items[draw()]) });
}

/** The same order for every virtual user and every run: which items are popular must not follow from their ids. */
export function shuffled(items) {
  const order = items.slice();
  let state = 1;
  for (let last = order.length - 1; last > 0; last -= 1) {
    // A linear congruential generator (Numerical Recipes' constants), apart from Math.random's seed.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const other = state % (last + 1);
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}
