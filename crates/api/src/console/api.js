// The server's HTTP API. The key exists only here, in memory. Paths are relative to the page, so that it works behind a
// proxy that serves it under a path.

let key = null;

export function useKey(value) {
  key = value;
}

// An error of the server or of the network. `status` 0 means that there was no answer.
export class Problem extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

async function send(path, { method = "GET", body, token, signal } = {}) {
  const headers = {};
  if (key) headers["x-api-key"] = key;
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "the server does not answer");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Problem(response.status, problem.code ?? "unknown", problem.detail ?? `status ${response.status}`);
}

const json = async (response) => (await response).json();

export const model = () => json(send("model"));
export const routes = () => json(send("routes"));
export const find = (q, signal) => json(send(`items?q=${encodeURIComponent(q)}`, { signal }));
export const metrics = async () => (await send("metrics")).text();
export const reload = (version, token) => json(send("admin/reload", { method: "POST", body: { version }, token }));

export const recommendMany = (requests) => json(send("recommend/batch", { method: "POST", body: { requests } }));

// The answer, and the server's time for it in milliseconds.
export async function recommend(body, signal) {
  const response = await send("recommend", { method: "POST", body, signal });
  const total = /total;dur=([\d.]+)/.exec(response.headers.get("server-timing") ?? "");
  return { answer: await response.json(), took: total ? Number(total[1]) : null };
}
