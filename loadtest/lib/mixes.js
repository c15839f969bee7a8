// Which route requests ask for.

import { weighted, zipfWeights } from './random.js';

/**
 * Returns `(seconds) => route` for a mix over `routes` (from GET /routes):
 *   NAME     every request names this route; `auto`, `full` and `smallest` too
 *   uniform  each route as often as any other
 *   zipf     after Zipf's law (exponent 1), the cheapest first
 *   flip     the same, but the dearest first from the middle of the run on: a sudden change of who comes
 */
export function routeMix(mix, routes, seconds) {
  if (mix === 'uniform') return () => routes[Math.floor(Math.random() * routes.length)];
  if (mix === 'zipf' || mix === 'flip') {
    const draw = weighted(zipfWeights(routes.length, 1));
    return (now) => {
      const rank = draw();
      return mix === 'flip' && now > seconds / 2 ? routes[routes.length - 1 - rank] : routes[rank];
    };
  }
  if (!['auto', 'full', 'smallest'].includes(mix) && !routes.includes(mix)) {
    throw new Error(`MIX=${mix}: use uniform, zipf, flip, auto, full, smallest or one of ${routes.join(', ')}`);
  }
  return () => mix;
}
