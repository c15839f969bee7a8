// The calls, over each transport. Each sends one request and records what became of it; none is waited for.

import http from 'k6/http';
import grpc from 'k6/net/grpc';
import { record } from './outcomes.js';
import { key, settings } from './settings.js';

const HEADERS = { 'content-type': 'application/json', ...key };
// Of gRPC's codes, those that stand for an HTTP status which is counted apart. k6 gives codes as objects: by number.
const STATUS = { 0: 200, 4: 504, 8: 429 };

/** The client of a gRPC run; made while k6 starts, since protocol files can be read only then. */
export function grpcClient(wanted) {
  if (!wanted) return null;
  const client = new grpc.Client();
  client.load([import.meta.resolve('../../proto')], 'canet/v1/recommender.proto');
  return client;
}

function post(path, body, then) {
  const sent = http.asyncRequest('POST', settings.url + path, JSON.stringify(body), {
    headers: HEADERS,
    tags: { name: path },
    timeout: settings.timeoutMs + 10000,
  });
  return sent.then(then, () => then({ status: 0, timings: { duration: 0 }, headers: {} }));
}

/** Returns `send(request, tags, overload)` for a kind of call; `request` makes a body, `overload` is that of `record`. */
export function caller(kind, client) {
  if (kind === 'batch') {
    return (request, tags, overload) => {
      const requests = Array.from({ length: settings.batch }, request);
      post('/recommend/batch', { requests }, (response) => {
        const rows = response.status === 200 ? response.json('results') : requests.map(() => ({}));
        for (const row of rows) {
          const status = response.status !== 200 ? response.status : row.status || 200;
          record(status, response.timings.duration, true, overload, tags);
        }
      });
    };
  }
  if (kind === 'grpc') {
    client.connect(settings.grpc, { plaintext: true });
    return (request, tags, overload) => {
      const started = Date.now();
      const call = { timeout: settings.timeoutMs + 10000, metadata: key };
      client.asyncInvoke('canet.v1.Recommender/Recommend', request(), call).then(
        (answer) => {
          const status = STATUS[Number(answer.status)] || 500;
          record(status, Date.now() - started, hasRetry(answer), overload, tags);
        },
        () => record(0, 0, false, overload, tags),
      );
    };
  }
  return (request, tags, overload) => {
    post('/recommend', request(), (response) => {
      const retry = response.headers['Retry-After'] !== undefined;
      record(response.status, response.timings.duration, retry, overload, tags);
    });
  };
}

function hasRetry(answer) {
  return [answer.headers, answer.trailers].some((metadata) => metadata && metadata['retry-after'] !== undefined);
}
