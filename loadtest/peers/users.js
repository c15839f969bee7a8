// Users who each wait for an answer and ask again at once. BODIES is a file of requests, URL where they go.

import http from 'k6/http';
import { SharedArray } from 'k6/data';

const bodies = new SharedArray('bodies', () => JSON.parse(open(__ENV.BODIES)));
const sent = { headers: { 'content-type': 'application/json' } };

export const options = {
  vus: Number(__ENV.USERS),
  duration: `${__ENV.SECONDS}s`,
  // It shares the cores with the server: what nobody reads is not made.
  discardResponseBodies: true,
  systemTags: [],
  summaryTrendStats: ['p(95)'],
};

export default function () {
  http.post(__ENV.URL, bodies[Math.floor(Math.random() * bodies.length)], sent);
}
