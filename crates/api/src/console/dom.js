// The page's elements: found by id, or made. Text is always set as text, never as HTML: titles come from a file.

export const byId = (id) => document.getElementById(id);

// make("li", {class: "item"}, child, "text"): `on…` are listeners, true and false set and leave out an attribute.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function text(id, value) {
  const element = byId(id);
  // Unchanged text is left alone: a status region would be read aloud again.
  if (element.textContent !== value) element.textContent = value;
}
