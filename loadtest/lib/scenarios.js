// The scenarios: how many requests come when, and of what kind. `R` is RATE.

import { settings } from './settings.js';

const constant = (rate) => ({ highest: rate, rate: () => rate });

/** `[share of the time, multiple of the rate]` pieces, one after the other. */
function pieces(rate, list) {
  const highest = rate * Math.max(...list.map(([, multiple]) => multiple));
  return {
    highest,
    rate(seconds, length) {
      let end = 0;
      for (const [share, multiple] of list) {
        end += share * length;
        if (seconds < end) return rate * multiple;
      }
      return rate * list[list.length - 1][1];
    },
  };
}

/** Rates of the steps: equal ones up to the highest. */
export function stepRates() {
  return Array.from({ length: settings.steps }, (_, step) => (settings.rate * (step + 1)) / settings.steps);
}

const steps = () => pieces(settings.rate, stepRates().map((rate) => [1 / settings.steps, rate / settings.rate]));

/**
 * run.sh reads names and `about` from these lines too. `about` for people, `seconds` unless DURATION is given, `load()` the rate over time, `mix` of routes, `lengths`
 * `[shortest, longest]` of histories where they are not 1 to the model's longest, `sessions: true` where users return,
 * `call` the kind of call, `steps: true` where the load is that of `stepRates`, `capacity: true` where failures are the
 * finding and not a fault, as of steps, and `recovered` the share of the time after which the objective must hold all the same.
 */
export const SCENARIOS = {
  smoke: { about: 'a short run at R: does everything work?', seconds: 10 },
  steady: { about: 'R for a minute', seconds: 60 },
  step: { about: 'equal steps up to R: where is the objective broken?', seconds: 200, load: steps, steps: true },
  'step-sessions': {
    about: 'the same by users who return with one to three new items (RETURNING, a share)',
    seconds: 200,
    load: steps,
    steps: true,
    sessions: true,
  },
  spike: {
    about: 'R, then five times R for a fifth of the time, then R again',
    seconds: 60,
    load: () => pieces(settings.rate, [[0.4, 1], [0.2, 5], [0.4, 1]]),
    capacity: true,
    recovered: 0.8,
  },
  soak: { about: 'R for an hour', seconds: 3600 },
  'routes-one': { about: 'every request names the full route (MIX names another)', seconds: 60, mix: 'full' },
  'routes-uniform': { about: 'each route as often as any other', seconds: 60, mix: 'uniform' },
  'routes-zipf': { about: 'few routes often, many seldom', seconds: 60, mix: 'zipf' },
  'routes-flip': { about: 'from mostly cheap routes to mostly dear ones at half time', seconds: 60, mix: 'flip' },
  short: { about: 'histories of 1 to 5 items', seconds: 60, lengths: () => [1, 5] },
  long: { about: 'histories of the longest length that the model reads', seconds: 60, lengths: (most) => [most, most] },
  sessions: { about: 'users who return with one to three new items (RETURNING, a share)', seconds: 60, sessions: true },
  batch: { about: 'R calls of BATCH rows', seconds: 60, call: 'batch' },
  grpc: { about: 'R over gRPC', seconds: 60, call: 'grpc' },
  reload: { about: 'R while the model is replaced again and again', seconds: 60, reloads: true },
  overload: {
    about: 'three times R, where R is the capacity: what is still answered, how is the rest refused?',
    seconds: 60,
    load: () => constant(3 * settings.rate),
    capacity: true,
  },
};

/** The scenario that SCENARIO names, with every field filled in. */
export function chosen() {
  const scenario = SCENARIOS[settings.scenario];
  if (scenario === undefined) throw new Error(`SCENARIO=${settings.scenario}: there is no such scenario`);
  const seconds = settings.seconds || scenario.seconds;
  const { highest, rate } = (scenario.load || (() => constant(settings.rate)))();
  return {
    ...scenario,
    seconds,
    profile: { seconds, highest, rate: (now) => rate(now, seconds) },
    mix: settings.mix || scenario.mix || 'auto',
    lengths: scenario.lengths || ((most) => [1, most]),
    call: scenario.call || 'single',
    capacity: Boolean(scenario.capacity || scenario.steps),
  };
}

/** Whether the server must have recovered at a moment of the scenario. */
export function isRecovered(scenario, now) {
  return scenario.recovered !== undefined && now >= scenario.recovered * scenario.seconds;
}

/** The step, from 0, that a moment of a scenario of steps belongs to. */
export function stepAt(now, seconds) {
  return Math.min(settings.steps - 1, Math.floor((now / seconds) * settings.steps));
}
