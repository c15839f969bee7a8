// What the server itself says of its items, routes and sizes.

import http from 'k6/http';
import { key } from './settings.js';

// GET /items finds this many at most.
const PAGE = 20;
const FIRST = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ';

function get(url, path) {
  const response = http.get(url + path, { headers: key });
  if (response.status !== 200) {
    throw new Error(`GET ${url}${path} answered ${response.status} ${response.error}: is a server ready there?`);
  }
  return response.json();
}

/** `{ name, version, max_len, size, routes, items }`: route names from the cheapest width up, ids of up to `most` of `size` items. */
export function describe(url, most) {
  const model = get(url, '/model');
  const routes = get(url, '/routes').routes.map((route) => route.name);
  const { max_len, items: size } = model.config;
  return { name: model.name, version: model.version, max_len, size, routes, items: items(url, most) };
}

/**
 * Ids of up to `most` items, by beginnings: where a beginning has more items than one answer holds, each beginning
 * that is one character longer is asked for, of the characters that ids were seen to have.
 */
function items(url, most) {
  const found = new Set();
  const characters = new Set();
  let beginnings = Array.from(FIRST);
  while (beginnings.length > 0 && found.size < most) {
    const crowded = [];
    for (const beginning of beginnings) {
      const ids = get(url, `/items?q=${encodeURIComponent(beginning)}`).items.map((entry) => entry.item);
      const own = ids.filter((id) => id.startsWith(beginning));
      own.forEach((id) => {
        found.add(id);
        Array.from(id).forEach((character) => characters.add(character));
      });
      if (own.length >= PAGE - 1) crowded.push(beginning);
      if (found.size >= most) break;
    }
    beginnings = crowded.flatMap((beginning) => Array.from(characters, (character) => beginning + character));
  }
  if (found.size === 0) throw new Error(`GET ${url}/items found no item whose id begins with a letter or a digit`);
  return Array.from(found).slice(0, most);
}
