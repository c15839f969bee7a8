// What became of each request.

import { Counter, Rate, Trend } from 'k6/metrics';

/** Milliseconds to an answer, of the requests that were answered. */
const latency = new Trend('latency', true);
/** Share of the requests that were neither answered nor refused as they should be. */
const failed = new Rate('failed');
const answered = new Counter('answered');
const refused = new Counter('refused');
const expired = new Counter('expired');
/** Refusals that do not say when to come again. */
const speechless = new Counter('refused_without_retry_after');
const KINDS = { 200: answered, 429: refused, 504: expired };

/**
 * Counts one row. `status` is an HTTP status (0: no answer), `retryAfter` whether a refusal named a time; `overload`
 * says that refusals (429) and missed deadlines (504) are how the server should meet this load.
 */
export function record(status, ms, retryAfter, overload, tags) {
  const kind = KINDS[status];
  if (kind !== undefined) kind.add(1, tags);
  if (status === 200) latency.add(ms, tags);
  if (status === 429) speechless.add(retryAfter ? 0 : 1, tags);
  failed.add(kind === undefined || (!overload && status !== 200), tags);
}
