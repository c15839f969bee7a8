// Loads the document into the explorer. If the server needs an API key, asks the reader for it first.
const [explorer, door, key, fault] = ["openapi-explorer", "#door", "#key", "#fault"]
  .map((selector) => document.querySelector(selector));

async function read() {
  const headers = key.value ? { "x-api-key": key.value } : {};
  const answer = await fetch("/openapi.json", { headers });
  const body = await answer.json();
  door.hidden = answer.status !== 401;
  fault.hidden = answer.ok || (answer.status === 401 && !key.value);
  if (!answer.ok) {
    fault.textContent = body.detail;
    return;
  }
  body.servers = [{ url: location.origin }];
  await explorer.loadSpec(body);
}

door.addEventListener("submit", (event) => {
  event.preventDefault();
  read();
});
read();
