// Draws. Math.random is seeded by the caller (k6's randomSeed), so a run can be repeated.

/** A gap of a Poisson process of `rate` a second, in milliseconds: exponential, by inversion. */
export function exponentialGapMs(rate) {
  return (-Math.log(1 - Math.random()) / rate) * 1000;
}

/** A whole number from `low` to `high`, both included. */
export function between(low, high) {
  return low + Math.floor(Math.random() * (high - low + 1));
}

/** A whole number from `low` to `high`, with the same chance for every doubling. */
export function logUniform(low, high) {
  return Math.min(high, Math.floor(low * Math.pow((high + 1) / low, Math.random())));
}

/** Weights 1, 1/2^s, 1/3^s, ... */
export function zipfWeights(count, exponent) {
  return Array.from({ length: count }, (_, rank) => 1 / Math.pow(rank + 1, exponent));
}

/**
 * Returns a function that draws indexes with chances in proportion to `weights`, in constant time: Walker's alias method, with
 * its table made as Vose does (IEEE Transactions on Software Engineering 17(9), 1991). Each place of the table holds its own
 * index and an alias that fills the place up.
 */
export function weighted(weights) {
  const count = weights.length;
  const mean = weights.reduce((sum, weight) => sum + weight, 0) / count;
  const kept = weights.map((weight) => weight / mean);
  const alias = kept.map((_, index) => index);
  const light = [];
  const heavy = [];
  kept.forEach((share, index) => (share < 1 ? light : heavy).push(index));
  while (light.length > 0 && heavy.length > 0) {
    const [filled, giver] = [light.pop(), heavy[heavy.length - 1]];
    alias[filled] = giver;
    kept[giver] -= 1 - kept[filled];
    if (kept[giver] < 1) light.push(heavy.pop());
  }
  return () => {
    const point = Math.random() * count;
    const place = Math.floor(point);
    // What rounding left over in `light` is full but for rounding, and its own alias.
    return point - place < kept[place] ? place : alias[place];
  };
}
