// The calls, over each transport. Each sends one request and records what became of it; none is waited for. An error while an
// answer is read would end its virtual user and all that it still had to send, so an answer that cannot be read is recorded as none.

import http from 'k6/http';
import grpc from 'k6/net/grpc';
import { record } from './outcomes.js';
import { key, settings } from './settings.js';

const HEADERS = { 'content-type': 'application/json', ...key };
// Of gRPC's codes, those that stand for an HTTP status which is counted apart. k6 gives codes as objects: by number.
const STATUS = { 0: 200, 4: 504, 8: 429 };
/** What is recorded for a row that got no answer, or one that says nothing. */
const NO_ANSWER = 0;

/** The client of a gRPC run; made while k6 starts, since protocol files can be read only then. */
export function grpcClient(wanted) {
  if (!wanted) return null;
  const client = new grpc.Client();
  // An address, in which a space is written %20.
  client.load([decodeURIComponent(import.meta.resolve('../../proto'))], 'canet/v1/recommender.proto');
  return client;
}

function post(path, body, then) {
  const sent = http.asyncRequest('POST', settings.url + path, JSON.stringify(body), {
    headers: HEADERS,
    tags: { name: path },
    timeout: settings.timeoutMs + 10000,
  });
  return sent.then(then, () => then({ status: NO_ANSWER, timings: { duration: 0 }, headers: {} }));
}

/** What a body has at a path of gjson; `undefined` if it has nothing there or is no JSON. */
function part(response, path) {
  try {
    return response.json(path);
  } catch (_) {
    return undefined;
  }
}

/**
 * Returns `send(request, tags, overload)` for a kind of call; `request` makes a body, `overload` is that of `record`. `size` is
 * how many items the model has.
 */
export function caller(kind, client, size) {
  /** The status to record for a row with status 200 and so many items. None at all are an answer only if all were seen. */
  const rowStatus = (row, items) => (items > 0 || new Set(row.history).size >= size ? 200 : NO_ANSWER);
  if (kind === 'batch') {
    return (request, tags, overload) => {
      const requests = Array.from({ length: settings.batch }, request);
      post('/recommend/batch', { requests }, (response) => {
        const results = response.status === 200 ? part(response, 'results') : undefined;
        requests.forEach((row, place) => {
          const result = (Array.isArray(results) && results[place]) || {};
          const found = result.status || rowStatus(row, Array.isArray(result.items) ? result.items.length : 0);
          const status = response.status === 200 ? found : response.status;
          record(status, response.timings.duration, true, overload, tags);
        });
      });
    };
  }
  if (kind === 'grpc') {
    client.connect(settings.grpc, { plaintext: true });
    return (request, tags, overload) => {
      const started = Date.now();
      const call = { timeout: settings.timeoutMs + 10000, metadata: key };
      const row = request();
      client.asyncInvoke('canet.v1.Recommender/Recommend', row, call).then(
        (answer) => {
          const items = (answer.message && answer.message.items) || [];
          const status = STATUS[Number(answer.status)] || 500;
          record(status === 200 ? rowStatus(row, items.length) : status, Date.now() - started, hasRetry(answer), overload, tags);
        },
        () => record(NO_ANSWER, 0, false, overload, tags),
      );
    };
  }
  return (request, tags, overload) => {
    const row = request();
    post('/recommend', row, (response) => {
      const retry = response.headers['Retry-After'] !== undefined;
      // `#` is the length of a list, and nothing else has one.
      const status = response.status === 200 ? rowStatus(row, part(response, 'items.#')) : response.status;
      record(status, response.timings.duration, retry, overload, tags);
    });
  };
}

function hasRetry(answer) {
  return [answer.headers, answer.trailers].some((metadata) => metadata && metadata['retry-after'] !== undefined);
}
