// Shows the model that serves, and lets an operator reload it.

import * as api from "./api.js";
import { byId, text } from "./dom.js";
import * as format from "./format.js";

// Calls `reloaded` once another generation serves.
export function start(reloaded) {
  byId("reload-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = byId("reload");
    button.disabled = true;
    say("Loading and checking the new generation …", false);
    try {
      const version = byId("version").value;
      const { version: served } = await api.reload(version ? Number(version) : null, byId("token").value || undefined);
      say(`Version ${served} serves.`, false);
      await reloaded();
    } catch (problem) {
      say(`Not reloaded: ${problem.message}`, true);
    } finally {
      button.disabled = false;
    }
  });
}

function say(note, bad) {
  text("reload-note", note);
  byId("reload-note").classList.toggle("bad", bad);
}

export function show(model, { routes }) {
  const { candidate } = model;
  byId("candidate").hidden = !candidate;
  text("candidate", candidate ? `v${candidate.version} is the candidate for ${format.percent(candidate.share)} of the users` : "");
  text("model-name", model.name);
  text("model-version", `v${model.version}`);
  text("digest", model.digest.slice(0, 12));
  byId("digest").title = model.digest;
  text("created", format.instant(model.created));
  text("item-count", format.count(model.config.items));
  text("route-count", format.count(routes.length));
  document.title = `${model.name} v${model.version} · canet`;
}
