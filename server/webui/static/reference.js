// The API description as elements of the page.

import { create } from "./dom.js";
import { curl } from "./example.js";

/** Text of a description: paragraphs, and `code` between backticks. */
function prose(text) {
  return text.split(/\n\s*\n/).filter((part) => part.trim() !== "").map((part) =>
    create("p", {}, part.split(/(`[^`]+`)/).map((piece) =>
      (/^`[^`]+`$/.test(piece) ? create("code", {}, piece.slice(1, -1)) : piece))));
}

/** A fold with one endpoint. What is inside is made when it is opened first. */
export function endpointFold(document, endpoint, address) {
  const { method, path, summary, locked, deprecated } = endpoint;
  const fold = create("details", { class: "endpoint", id: anchor(endpoint) },
    create("summary", {},
      create("span", { class: "method", "data-method": method }, method),
      create("code", { class: "path" }, path),
      create("span", { class: "summary" }, summary),
      locked && create("span", { class: "tag" }, "key"),
      deprecated && create("span", { class: "tag" }, "deprecated")));
  fold.addEventListener("toggle", () => {
    if (fold.open && fold.childElementCount === 1) fold.append(...inside(document, endpoint, address));
  });
  return fold;
}

/** The id of an endpoint's fold: its place in the page's address. */
export function anchor({ method, path }) {
  return `${method}${path}`.toLowerCase().replace(/[^a-z0-9]+/g, "-");
}

function inside(document, endpoint, address) {
  const { description, parameters, body, replies } = endpoint;
  const parts = [...prose(description)];
  if (parameters.length > 0) parts.push(create("h4", {}, "Parameters"), fieldTable(parameters));
  if (body !== null) {
    parts.push(create("h4", {}, `Body: ${body.type}`), ...prose(body.description));
    if (body.fields.length > 0) parts.push(fieldTable(body.fields));
  }
  parts.push(create("h4", {}, "Example"), create("pre", {}, create("code", {}, curl(document, endpoint, address))));
  for (const reply of replies) {
    const kind = reply.type === null ? "" : `: ${reply.type}`;
    parts.push(create("h4", {}, `Answer ${reply.status}${kind}`), ...prose(reply.description));
    if (reply.fields.length > 0) parts.push(fieldTable(reply.fields));
  }
  return [create("div", { class: "inside" }, parts)];
}

const COLUMNS = ["Field", "Type", "Default", "Range", "Meaning"];

function fieldTable(fields) {
  const head = create("tr", {}, COLUMNS.map((name) => create("th", { scope: "col" }, name)));
  return create("table", {}, create("thead", {}, head), create("tbody", {}, fields.map(fieldRow)));
}

function fieldRow({ name, place, type, default: usual, range, meaning, required }) {
  const cells = [
    [create("code", {}, name), " ", place && create("span", { class: "tag" }, place)],
    [type],
    required ? [create("b", {}, "required")] : [usual !== null && create("code", {}, usual)],
    [range],
    prose(meaning),
  ];
  // The column's name stands before each cell where the window is too narrow for a table.
  return create("tr", {}, cells.map((cell, column) => create("td", { "data-column": COLUMNS[column] }, cell)));
}
