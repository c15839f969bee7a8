// Finds and makes elements. Text is never set as HTML, because titles come from a file.

export const byId = (id) => document.getElementById(id);

// make("li", {class: "item"}, child, "text"). `on…` adds a listener; true sets an attribute and false leaves it out.
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
  // Setting unchanged text would make a screen reader read a status region again.
  if (element.textContent !== value) element.textContent = value;
}
