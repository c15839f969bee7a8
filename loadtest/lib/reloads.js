// Replaces the model again and again while requests run.

import http from 'k6/http';
import { sleep } from 'k6';
import { Counter, Rate } from 'k6/metrics';
import { key, settings } from './settings.js';

const reloads = new Counter('reloads');
/** Share of the reloads that ended otherwise than they should: a good version taken, a bad one refused. */
const unexpected = new Rate('reload_unexpected');

/**
 * Takes RELOAD's versions in turn, and after each one asks for one of REFUSED's, which must be refused (422, or 404
 * where there is none) and change nothing. Unless told, the version that serves is loaded again, and one that does not
 * exist is refused. Each version has its turn, however slow reloads are.
 */
export function reloadFor(seconds, serving) {
  const good = settings.reload.length > 0 ? settings.reload : [serving];
  const bad = settings.refused.length > 0 ? settings.refused : [Number.MAX_SAFE_INTEGER];
  const end = Date.now() + seconds * 1000;
  const least = Math.max(good.length, bad.length);
  for (let round = 0; round < least || Date.now() < end; round += 1) {
    const version = good[round % good.length];
    const taken = reload(version);
    reloads.add(1);
    unexpected.add(taken.status !== 200 || taken.json('version') !== version);
    const refused = reload(bad[round % bad.length]);
    reloads.add(1);
    unexpected.add(![404, 422].includes(refused.status));
    // The objective is about live requests, not about a server that does nothing but reload.
    sleep(0.2);
  }
}

function reload(version) {
  const headers = { 'content-type': 'application/json', ...key };
  if (settings.adminToken) headers.authorization = `Bearer ${settings.adminToken}`;
  return http.post(`${settings.url}/admin/reload`, JSON.stringify({ version }), {
    headers,
    timeout: '120s',
    tags: { name: '/admin/reload' },
  });
}
