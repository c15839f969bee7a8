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

/** Draws indexes with chances in proportion to `weights`. */
export function weighted(weights) {
  let total = 0;
  const sums = weights.map((weight) => (total += weight));
  return () => {
    const point = Math.random() * total;
    let [low, high] = [0, sums.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sums[middle] > point) high = middle;
      else low = middle + 1;
    }
    return low;
  };
}
