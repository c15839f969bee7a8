// Sessions: users who return with one to three new items. They show what a server gains that keeps histories.

import { between, weighted, zipfWeights } from './random.js';

/** Most items that a request carries, if the model reads no more. Earlier ones are left out, and `history_start` says how many. */
const SENT = 100;

/**
 * Returns a function that makes the next request's history, as `{ history, history_start }`. A share `returning` of the
 * requests is of users who return; each of the others is of a new user, who takes the place of one of the `active` users.
 * A user's items are a history of a file, entered at a random place, or four times `longest` items after Zipf's law.
 * `longest` is how many items the model reads.
 */
export function sessionSource(items, longest, files, { returning, active }) {
  const draw = files.length > 0 ? null : weighted(zipfWeights(items.length, 1));
  const sent = Math.max(SENT, longest);
  const users = [];

  /** A user in the middle of his life. Of his items, only those that he will send are drawn. */
  function newUser() {
    const all = files.length > 0 ? files[Math.floor(Math.random() * files.length)] : null;
    const length = all ? all.length : 4 * longest;
    const known = between(1, length);
    const item = all ? (place) => all[place] : () => items[draw()];
    const start = Math.max(0, known - sent);
    return { length, known, item, newest: Array.from({ length: known - start }, (_, place) => item(start + place)) };
  }

  /** Whether the user has as many further items. If so, he takes them. */
  function grows(user, count) {
    if (user.known + count > user.length) return false;
    for (let more = 0; more < count; more += 1) user.newest.push(user.item(user.known + more));
    user.newest.splice(0, Math.max(0, user.newest.length - sent));
    user.known += count;
    return true;
  }

  return () => {
    let place = Math.floor(Math.random() * users.length);
    if (users.length > 0 && Math.random() < returning) {
      if (!grows(users[place], between(1, 3))) users[place] = newUser();
    } else if (users.length < active) {
      place = users.push(newUser()) - 1;
    } else {
      users[place] = newUser();
    }
    const { newest, known } = users[place];
    return { history: newest.slice(), history_start: known - newest.length };
  };
}
