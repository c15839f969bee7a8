// Users who each wait for an answer and ask again at once. URL is where requests go, USERS how many ask at a time.
//
// BODIES is a file of requests, of which each is drawn at random. With SESSIONS, a file of sequences `user item item ...`,
// requests are instead of users who return with one to three new items; they name the route ROUTE, if there is one.

import http from 'k6/http';
import { SharedArray } from 'k6/data';

import { recorded } from '../lib/histories.js';
import { sessionSource } from '../lib/sessions.js';

const bodies = new SharedArray('bodies', () => (__ENV.BODIES ? JSON.parse(open(__ENV.BODIES)) : []));
const sequences = recorded(__ENV.SESSIONS);
const sent = { headers: { 'content-type': 'application/json' } };
const users = Number(__ENV.USERS);

export const options = {
  vus: users,
  duration: `${__ENV.SECONDS}s`,
  // It may share the cores with the server: what nobody reads is not made.
  discardResponseBodies: true,
  systemTags: [],
  summaryTrendStats: ['p(95)'],
};

/** Users who may return, of all that ask together. */
const ACTIVE = 1000;

const returning = __ENV.SESSIONS
  ? sessionSource([], Number(__ENV.LONGEST), sequences, { returning: 0.8, active: Math.ceil(ACTIVE / users) })
  : null;

function body() {
  if (returning === null) return bodies[Math.floor(Math.random() * bodies.length)];
  return JSON.stringify(__ENV.ROUTE ? { ...returning(), route: __ENV.ROUTE } : returning());
}

export default function () {
  http.post(__ENV.URL, body(), sent);
}
