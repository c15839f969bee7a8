// Loads the document into the explorer. If the server needs an API key, asks the reader for it first.
const [explorer, keyForm, key, problem] = ["openapi-explorer", "#key-form", "#key", "#problem"]
  .map((selector) => document.querySelector(selector));

async function read() {
  const headers = key.value ? { "x-api-key": key.value } : {};
  const answer = await fetch("openapi.json", { headers });
  const body = await answer.json();
  keyForm.hidden = answer.status !== 401;
  problem.hidden = answer.ok || (answer.status === 401 && !key.value);
  if (!answer.ok) {
    problem.textContent = body.detail;
    return;
  }
  // The page may stand behind a path. The explorer appends paths, which begin with a slash.
  body.servers = [{ url: new URL(".", location.href).href.replace(/\/$/, "") }];
  await explorer.loadSpec(body);
}

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  read();
});
read();
