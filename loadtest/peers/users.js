// Users who each wait for an answer and ask again at once. BODIES is a file of requests, URL where they go.

import http from 'k6/http';
import { SharedArray } from 'k6/data';
import { check } from 'k6';

const bodies = new SharedArray('bodies', () => JSON.parse(open(__ENV.BODIES)));
const headers = { 'content-type': 'application/json' };

export const options = {
  vus: Number(__ENV.USERS),
  duration: `${__ENV.SECONDS}s`,
  discardResponseBodies: true,
  summaryTrendStats: ['med', 'p(95)'],
};

export default function () {
  const body = bodies[Math.floor(Math.random() * bodies.length)];
  check(http.post(__ENV.URL, body, { headers }), { answered: (response) => response.status === 200 });
}
