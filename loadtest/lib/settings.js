// What the environment says (`k6 run -e NAME=VALUE`), read once and checked.

function text(name, fallback) {
  const value = __ENV[name];
  return value === undefined || value === '' ? fallback : value;
}

function number(name, fallback) {
  const value = Number(text(name, fallback));
  if (!Number.isFinite(value) || value < 0) throw new Error(`${name}=${__ENV[name]}: a number from 0 up is needed`);
  return value;
}

/** Seconds of `90`, `90s`, `5m` or `1h`; `undefined` where the variable is not set. */
function seconds(name) {
  const value = text(name, undefined);
  if (value === undefined) return undefined;
  const found = /^(\d+(?:\.\d+)?)([smh]?)$/.exec(value);
  if (!found) throw new Error(`${name}=${value}: use 90s, 5m or 1h`);
  return Number(found[1]) * { '': 1, s: 1, m: 60, h: 3600 }[found[2]];
}

function versions(name) {
  return text(name, '').split(',').filter((version) => version !== '').map(Number);
}

export const settings = {
  scenario: text('SCENARIO', 'smoke'),
  url: text('URL', 'http://127.0.0.1:8080').replace(/\/+$/, ''),
  /** `host:port` of the gRPC server, for the scenario `grpc`. */
  grpc: text('GRPC', '127.0.0.1:8081'),
  /** Requests a second. What it means in a scenario stands in the scenario's description. */
  rate: number('RATE', 20),
  seconds: seconds('DURATION'),
  /** Replaces the scenario's own mix of routes. */
  mix: text('MIX', undefined),
  /** A file with real histories; without one they are drawn. */
  histories: text('HISTORIES', undefined),
  /** Most items to learn from the server for drawn histories. */
  items: number('ITEMS', 2000),
  k: number('K', 10),
  timeoutMs: number('TIMEOUT_MS', 1000),
  /** Rows a call, in the scenario `batch`. */
  batch: number('BATCH', 16),
  /** Share of the requests of users who return, in the scenario `sessions`. */
  returning: number('RETURNING', 0.8),
  steps: number('STEPS', 10),
  poisson: text('ARRIVALS', 'poisson') !== 'uniform',
  /** Virtual users that send; each is one source of arrivals. */
  sources: number('SOURCES', 4),
  seed: number('SEED', 1),
  /** The objective: 99 % of the answers within so many milliseconds, and this share of requests may fail. */
  p99Ms: number('SLO_P99_MS', 100),
  errors: number('SLO_ERRORS', 0.001),
  /** Where 1 % of the requests were sent later than due by more than this, the generator was too slow: no result. */
  lateMs: number('LATE_MS', 50),
  /** Versions that a reload takes in turn, and versions that it must refuse. */
  reload: versions('RELOAD'),
  refused: versions('REFUSED'),
  adminToken: text('ADMIN_TOKEN', undefined),
  apiKey: text('API_KEY', undefined),
  /** Where the summary goes, as OUT.html and OUT.json. */
  out: text('OUT', undefined),
};

/** Headers or metadata with the key of a server that wants one. */
export const key = settings.apiKey ? { 'x-api-key': settings.apiKey } : {};
