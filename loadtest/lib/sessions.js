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
  const draw = weighted(zipfWeights(items.length, 1));
  const drawn = () => Array.from({ length: 4 * longest }, () => items[draw()]);
  const sent = Math.max(SENT, longest);
  const users = [];

  function newUser() {
    const all = files.length > 0 ? files[Math.floor(Math.random() * files.length)] : drawn();
    return { all, known: between(1, all.length) };
  }

  return () => {
    let place = Math.floor(Math.random() * users.length);
    if (users.length > 0 && Math.random() < returning) {
      const grown = users[place].known + between(1, 3);
      if (grown > users[place].all.length) users[place] = newUser();
      else users[place].known = grown;
    } else if (users.length < active) {
      place = users.push(newUser()) - 1;
    } else {
      users[place] = newUser();
    }
    const { all, known } = users[place];
    const start = Math.max(0, known - sent);
    return { history: all.slice(start, known), history_start: start };
  };
}
