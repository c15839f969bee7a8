// Open arrivals: requests are sent when users come, not when the server has answered the last one.
//
// k6's own arrival-rate executors space their iterations evenly, and a server with evenly spaced requests hardly
// queues. Here every virtual user is one Poisson source of `rate / sources`, and Poisson sources add up to one of
// `rate`: the gaps are exponential, drawn by inversion, and each request is due at the sum of the gaps before it, so
// a late timer does not slow the rate down. A rate that changes is made by thinning: arrivals are drawn at the highest
// rate and kept with the chance rate(t) / highest, which is exact. Nothing waits for an answer.

import { Counter, Trend } from 'k6/metrics';
import { exponentialGapMs } from './random.js';

/** How much later than due requests were sent: where this grows, the load generator is too slow for the rate. */
export const sentLate = new Trend('sent_late', true);
/** Requests that left. A run without any says nothing. */
const sent = new Counter('sent');

/**
 * Calls `send(seconds)` at each arrival of this virtual user, for `profile.seconds` seconds; `seconds` counts from
 * the start. `profile.rate(seconds)` is the rate of all sources together, at most `profile.highest`. `tags(seconds)` are those
 * of the arrival's lateness.
 */
export function arrive(profile, sources, poisson, tags, send) {
  const share = profile.highest / sources;
  const start = Date.now();
  // Evenly spaced sources start apart, so that all of them together are evenly spaced too.
  let due = poisson ? 0 : (((__VU - 1) % sources) / profile.highest) * 1000;
  const next = () => {
    due += poisson ? exponentialGapMs(share) : 1000 / share;
    if (due < profile.seconds * 1000) {
      setTimeout(fire, Math.max(0, due - (Date.now() - start)));
    }
  };
  const fire = () => {
    const seconds = due / 1000;
    if (Math.random() * profile.highest < profile.rate(seconds)) {
      sentLate.add(Math.max(0, Date.now() - start - due), tags(seconds));
      send(seconds);
      sent.add(1);
    }
    next();
  };
  next();
}
