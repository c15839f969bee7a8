// The end of a run: one line and the broken objectives on the terminal, everything as JSON, and a page for people.

import { stepRates } from './scenarios.js';
import { settings } from './settings.js';
import { page } from './page.js';

const round = (value) => (value === undefined ? null : Number(value.toFixed(3)));

function count(metrics, name) {
  return metrics[name] ? metrics[name].values.count : 0;
}

/** `{ p50_ms, ... }` of a trend; `null` where nothing was counted. */
function times(metric) {
  if (!metric || !metric.values.count) return null;
  const { values } = metric;
  return {
    mean_ms: round(values.avg),
    p50_ms: round(values.med),
    p95_ms: round(values['p(95)']),
    p99_ms: round(values['p(99)']),
    'p99.9_ms': round(values['p(99.9)']),
    max_ms: round(values.max),
  };
}

/** One row a step of a scenario of steps. */
function steps(metrics, seconds) {
  return stepRates().map((rate, step) => {
    const of = (name) => count(metrics, `${name}{step:${step}}`);
    const sent = seconds / settings.steps;
    const failed = metrics[`failed{step:${step}}`];
    const [answered, refused, expired] = ['answered', 'refused', 'expired'].map(of);
    const total = failed ? failed.values.passes + failed.values.fails : 0;
    return {
      offered_rps: round(rate),
      sent_rps: round(total / sent),
      answered_rps: round(answered / sent),
      refused,
      expired,
      failed: failed ? failed.values.passes : 0,
      latency: times(metrics[`latency{step:${step}}`]),
      sent_late: times(metrics[`sent_late{step:${step}}`]),
    };
  });
}

/** Whether the requests of a step left late: then the step says nothing about the server. */
function late(step) {
  return step.sent_late !== null && step.sent_late.p99_ms > settings.lateMs;
}

/** Whether a step met the objective. */
function met(step) {
  if (step.latency === null) return false;
  return step.latency.p99_ms <= settings.p99Ms && 1 - step.answered_rps / step.sent_rps <= settings.errors;
}

/**
 * The step before the first two in a row that broke the objective, or before the last one if that did; `null` where there
 * is none before. One broken step among good ones is something else that this machine did. `late` says whether requests left
 * late up to this step: then it is no measurement of the server. `at_least` says whether they left late in the two that broke
 * the objective: then the server may be capable of more.
 */
function capacity(list) {
  const broken = list.findIndex((step, place) => !met(step) && (place + 1 === list.length || !met(list[place + 1])));
  const last = broken === -1 ? list.length - 1 : broken - 1;
  if (last < 0) return null;
  const end = broken !== -1;
  return {
    offered_rps: list[last].offered_rps,
    found_the_end: end,
    late: list.slice(0, last + 1).some(late),
    at_least: end && list.slice(last + 1, last + 3).some(late),
  };
}

function objectives(metrics) {
  return Object.entries(metrics).flatMap(([name, metric]) =>
    name.includes('{step:')
      ? []
      : Object.entries(metric.thresholds || {}).map(([rule, { ok }]) => ({ objective: `${name}: ${rule}`, ok })),
  );
}

export function summarize(data, scenario) {
  const { metrics } = data;
  const ran = scenario.seconds;
  const [answered, refused, expired] = ['answered', 'refused', 'expired'].map((name) => count(metrics, name));
  const total = metrics.failed ? metrics.failed.values.passes + metrics.failed.values.fails : 0;
  const report = {
    scenario: settings.scenario,
    about: scenario.about,
    url: scenario.call === 'grpc' ? settings.grpc : settings.url,
    rate: settings.rate,
    seconds: ran,
    arrivals: settings.poisson ? 'poisson' : 'uniform',
    mix: scenario.mix,
    histories: settings.histories || 'drawn',
    returning: scenario.sessions ? settings.returning : 0,
    requests: total,
    answered_rps: round(answered / ran),
    answered,
    refused,
    refused_without_retry_after: count(metrics, 'refused_without_retry_after'),
    expired,
    failed: metrics.failed ? metrics.failed.values.passes : 0,
    latency: times(metrics.latency),
    sent_late: times(metrics.sent_late),
    reloads: count(metrics, 'reloads'),
    objectives: objectives(metrics),
  };
  if (scenario.steps) {
    report.steps = steps(metrics, ran);
    report.capacity = capacity(report.steps);
  }
  const written = { stdout: text(report) };
  if (settings.out) {
    written[`${settings.out}.json`] = `${JSON.stringify(report, null, 1)}\n`;
    written[`${settings.out}.html`] = page(report);
  }
  return written;
}

function text(report) {
  const { latency } = report;
  const lines = [
    `${report.scenario}: ${report.requests} sent in ${report.seconds} s, ${report.answered} answered ` +
      `(${report.answered_rps}/s), ${report.refused} refused, ${report.expired} expired, ${report.failed} failed` +
      (latency ? `; p50 ${latency.p50_ms} ms, p99 ${latency.p99_ms} ms` : '') +
      (report.reloads ? `; ${report.reloads} reloads` : ''),
  ];
  for (const step of report.steps || []) {
    const p99 = step.latency ? `${step.latency.p99_ms} ms` : '-';
    const sent = late(step) ? `, sent late: p99 ${step.sent_late.p99_ms} ms` : '';
    lines.push(`  offered ${step.offered_rps}/s, answered ${step.answered_rps}/s, p99 ${p99}${sent}`);
  }
  if (report.capacity) {
    const open = report.capacity.found_the_end ? '' : ' or more: raise RATE';
    lines.push(`  capacity at p99 <= ${settings.p99Ms} ms: ${report.capacity.offered_rps}/s${open}`);
  }
  report.objectives.filter(({ ok }) => !ok).forEach(({ objective }) => lines.push(`  broken: ${objective}`));
  return `${lines.join('\n')}\n`;
}
