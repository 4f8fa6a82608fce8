// Elements by id, and new ones. Text enters the page as text only, never as markup.

/** The element with this id, which the page must have. */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no element #${id}`);
  return found;
}

/** A new element with attributes and children; strings become text. What is null, undefined or false is left out. */
export function create(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (isThere(value)) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter(isThere));
  return element;
}

function isThere(value) {
  return value !== null && value !== undefined && value !== false;
}

/** Show rows of [term, description] in a <dl>; rows without a description are left out. */
export function showRows(list, rows) {
  const told = rows.filter(([, text]) => isThere(text));
  list.replaceChildren(...told.flatMap(([term, text]) => [create("dt", {}, term), create("dd", {}, String(text))]));
}

/** Show one line of trouble, or none. */
export function showError(message) {
  const line = byId("error");
  line.textContent = message ?? "";
  line.hidden = !message;
}
