// Loads the document into the explorer. If the server needs an API key, asks the reader for it first.
const [explorer, keyForm, key, problem] = ["openapi-explorer", "#key-form", "#key", "#problem"]
  .map((selector) => document.querySelector(selector));

// The explorer derives its other colours from these.
const COLOURS = {
  light: { "bg-color": "#ffffff", "text-color": "#1a1d21", "header-color": "#1a1d21", "primary-color": "#0f766e",
    "secondary-color": "#0f766e", "nav-bg-color": "#f6f6f4", "nav-text-color": "#1a1d21", "nav-hover-bg-color": "#d6ebe8",
    "nav-hover-text-color": "#0f766e" },
  dark: { "bg-color": "#181b1e", "text-color": "#e8eaec", "header-color": "#e8eaec", "primary-color": "#2dd4bf",
    "secondary-color": "#2dd4bf", "nav-bg-color": "#101214", "nav-text-color": "#e8eaec", "nav-hover-bg-color": "#123c38",
    "nav-hover-text-color": "#2dd4bf" },
};

// The explorer shows an operation's group as a heading above its summary, and in red that no key was set.
const CORRECTIONS = `
  .expanded-endpoint-body > h1.tag-link { display: none !important; }
  .red-text { color: inherit; }
`;

// A list of more values hides the fields around it.
const MOST_VALUES = 8;

function colour(dark) {
  for (const [name, value] of Object.entries(COLOURS[dark ? "dark" : "light"])) explorer.setAttribute(name, value);
}

// Puts long lists of values into a part of the description that the reader can open.
function collapse(part) {
  if (part === null || typeof part !== "object") return;
  Object.values(part).forEach(collapse);
  if (!Array.isArray(part.enum) || part.enum.length <= MOST_VALUES) return;
  const values = part.enum.filter((value) => value !== null).map((value) => `<code>${String(value).replace(/[&<>]/g, (sign) => `&#${sign.charCodeAt()};`)}</code>`);
  part.description = `${part.description ?? ""}\n\n<details><summary>${values.length} values</summary>${values.join(", ")}</details>`;
  delete part.enum;
}

async function read() {
  const headers = key.value ? { "x-api-key": key.value } : {};
  const [answer, server] = await Promise.all([fetch("openapi.json", { headers }), fetch("v2", { headers })]);
  const body = await answer.json();
  keyForm.hidden = answer.status !== 401;
  problem.hidden = answer.ok || (answer.status === 401 && !key.value);
  if (!answer.ok) {
    problem.textContent = body.detail;
    return;
  }
  // The page may stand behind a path. The explorer appends paths, which begin with a slash.
  body.servers = [{ url: new URL(".", location.href).href.replace(/\/$/, "") }];
  if (server.ok) body.info.title = `canet ${(await server.json()).version}`;
  body.info.version = `API ${body.info.version}`;
  if (!body.components.securitySchemes) explorer.setAttribute("hide-authentication", "true");
  collapse(body.components.schemas);
  await explorer.loadSpec(body);
}

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  read();
});
const scheme = matchMedia("(prefers-color-scheme: dark)");
scheme.addEventListener("change", ({ matches }) => colour(matches));
colour(scheme.matches);
const corrections = new CSSStyleSheet();
corrections.replaceSync(CORRECTIONS);
const { shadowRoot } = explorer;
shadowRoot.adoptedStyleSheets = [...shadowRoot.adoptedStyleSheets, corrections];
read();
