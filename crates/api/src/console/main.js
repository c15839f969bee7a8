// The console: connects its parts and follows the model that serves.

import * as answer from "./answer.js";
import * as api from "./api.js";
import { byId, text } from "./dom.js";
import * as history from "./history.js";
import * as live from "./live.js";
import * as model from "./model.js";
import * as routes from "./routes.js";
import * as search from "./search.js";

// Digests and versions of the models on the page.
let followed = null;

async function follow() {
  const [serves, its] = await Promise.all([api.model(), api.routes()]);
  followed = identity(serves);
  model.show(serves, its);
  routes.take(serves, its);
  live.take(its);
  await history.open();
  await answer.ask();
}

const identity = ({ version, digest, candidate }) =>
  `${version} ${digest} ${candidate ? `${candidate.version} ${candidate.digest} ${candidate.share}` : ""}`;

async function seen(serves, problem) {
  if (problem) return fault(problem);
  try {
    if (!serves) return say("loading", "loading the model");
    if (identity(serves) !== followed) await follow();
    byId("key-form").hidden = true;
    say("live", "live");
  } catch (error) {
    fault(error);
  }
}

function fault(problem) {
  if (problem.status === 401) {
    byId("key-form").hidden = false;
    return say("bad", "needs a key");
  }
  return problem.status === 503 ? say("loading", "loading the model") : say("bad", problem.message);
}

function say(name, words) {
  byId("status").dataset.state = name;
  text("status", words);
}

byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  api.useKey(byId("key").value);
  text("key-note", "");
  try {
    await follow();
    byId("key-form").hidden = true;
    say("live", "live");
  } catch (problem) {
    text("key-note", problem.status === 401 ? "This is not the server's key." : problem.message);
  }
});

search.start();
history.start();
routes.start();
answer.start();
model.start(follow);
live.start(seen);
