// Sessions: users who return with one to three new items. They show what a server gains that keeps histories.

import { between, weighted, zipfWeights } from './random.js';

/** Users who may return, of each virtual user that sends. */
const ACTIVE = 250;

/** Most items that a request carries. Earlier ones are left out, and `history_start` says how many. */
const SENT = 100;

/**
 * Returns a function that makes the next request's history, as `{ history, history_start }`. A share `returning` of the
 * requests is of users who return; each of the others is of a new user, who takes the place of one of them. A user's items
 * are a history of a file, entered at a random place, or as many as four times `longest`, after Zipf's law.
 */
export function sessionSource(items, longest, files, returning) {
  const draw = weighted(zipfWeights(items.length, 1));
  const drawn = () => Array.from({ length: 4 * longest }, () => items[draw()]);
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
    } else if (users.length < ACTIVE) {
      place = users.push(newUser()) - 1;
    } else {
      users[place] = newUser();
    }
    const { all, known } = users[place];
    const start = Math.max(0, known - SENT);
    return { history: all.slice(start, known), history_start: start };
  };
}
