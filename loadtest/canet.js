// Load tests of a canet server. SCENARIO names one of lib/scenarios.js; lib/settings.js lists what else can be set.

import { randomSeed } from 'k6';
import { arrive } from './lib/arrivals.js';
import { caller, grpcClient } from './lib/calls.js';
import { describe } from './lib/catalogue.js';
import { historySource, recorded, shuffled } from './lib/histories.js';
import { routeMix } from './lib/mixes.js';
import { reloadFor } from './lib/reloads.js';
import { chosen, isRecovered, stepAt, stepRates } from './lib/scenarios.js';
import { sessionSource } from './lib/sessions.js';
import { settings } from './lib/settings.js';
import { summarize } from './lib/summary.js';

/** Users who may return, in a scenario of sessions. */
const ACTIVE = 1000;

const scenario = chosen();
const files = recorded(settings.histories);
const client = grpcClient(scenario.call === 'grpc');

export const options = {
  scenarios: Object.assign(
    {
      requests: {
        executor: 'per-vu-iterations',
        exec: 'requests',
        vus: settings.sources,
        iterations: 1,
        // The last call gives up 10 s after its deadline (lib/calls.js). k6 counts nothing of what it interrupts.
        maxDuration: `${Math.ceil(scenario.seconds + settings.timeoutMs / 1000) + 15}s`,
      },
    },
    scenario.reloads
      ? {
          reloads: {
            executor: 'per-vu-iterations',
            exec: 'reloads',
            vus: 1,
            iterations: 1,
            maxDuration: `${Math.ceil(scenario.seconds) + 120}s`,
          },
        }
      : {},
  ),
  thresholds: thresholds(),
  summaryTrendStats: ['count', 'avg', 'min', 'med', 'p(90)', 'p(95)', 'p(99)', 'p(99.9)', 'max'],
};

function thresholds() {
  const wanted = {
    sent: ['count>0'],
    sent_late: [`p(99)<=${settings.lateMs}`],
    failed: [`rate<=${settings.errors}`],
  };
  // Steps may end without an answer: then the capacity is below the first one.
  if (!scenario.steps) wanted.answered = ['count>0'];
  if (!scenario.capacity) wanted.latency = [`p(99)<=${settings.p99Ms}`];
  if (scenario.reloads) {
    wanted.reload_unexpected = ['rate==0'];
    wanted.reloads = ['count>=2'];
  }
  if (settings.scenario === 'overload') {
    // What the server can do it goes on doing, and what it refuses it refuses in time and in words.
    wanted.answered.push(`rate>=${0.8 * settings.rate}`);
    wanted.latency = [`p(99)<=${settings.timeoutMs}`];
    wanted.refused_without_retry_after = ['count==0'];
  }
  if (scenario.recovered) {
    wanted['latency{recovered:true}'] = [`p(99)<=${settings.p99Ms}`];
    wanted['failed{recovered:true}'] = [`rate<=${settings.errors}`];
  }
  if (scenario.steps) {
    // k6 keeps figures of a tag only where a threshold asks for them; these always hold.
    stepRates().forEach((_, step) => {
      ['latency', 'sent_late'].forEach((name) => (wanted[`${name}{step:${step}}`] = ['max>=0']));
      ['answered', 'refused', 'expired'].forEach((name) => (wanted[`${name}{step:${step}}`] = ['count>=0']));
      wanted[`failed{step:${step}}`] = ['rate>=0'];
    });
  }
  return wanted;
}

export function setup() {
  const server = describe(settings.url, files.length > 0 ? 1 : settings.items);
  // An error of setup ends the run, one of a virtual user does not.
  routeMix(scenario.mix, server.routes, scenario.seconds);
  return { ...server, items: shuffled(server.items) };
}

/** One source of arrivals. */
export function requests(server) {
  randomSeed(settings.seed * 1000 + __VU);
  const [shortest, longest] = scenario.lengths(server.max_len);
  const history = scenario.sessions
    ? sessionSource(server.items, longest, files, { returning: settings.returning, active: ACTIVE / settings.sources })
    : historySource(server.items, shortest, longest, files);
  const route = routeMix(scenario.mix, server.routes, scenario.seconds);
  const send = caller(scenario.call, client, server.size);
  const tags = (now) => {
    if (scenario.steps) return { step: String(stepAt(now, scenario.seconds)) };
    return scenario.recovered ? { recovered: String(isRecovered(scenario, now)) } : {};
  };
  arrive(scenario.profile, settings.sources, settings.poisson, tags, (now) => {
    const request = () => ({
      ...history(),
      k: settings.k,
      route: route(now),
      timeout_ms: settings.timeoutMs,
    });
    send(request, tags(now), scenario.capacity && !isRecovered(scenario, now));
  });
}

/** The operator of the scenario `reload`. */
export function reloads(server) {
  reloadFor(scenario.seconds, server.version);
}

export function handleSummary(data) {
  return summarize(data, scenario);
}
