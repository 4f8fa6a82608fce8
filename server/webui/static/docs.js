// The page with the API description: reads openapi.json, groups it, and searches it.

import { byId, create, showError } from "./dom.js";
import { endpoints, groups } from "./openapi.js";
import { anchor, endpointFold } from "./reference.js";
import { askJson, serverAddress } from "./server.js";

/** Fold, group and searchable text of each endpoint. */
let entries = [];

function show(document_) {
  const list = endpoints(document_);
  const sections = new Map();
  for (const { name, description } of groups(document_, list)) {
    const id = `group-${anchor({ method: "", path: name })}`;
    const section = create("section", { id, "aria-label": name },
      create("h2", {}, name), description !== "" && create("p", { class: "hint" }, description));
    const link = create("a", { href: `#${id}` }, name);
    sections.set(name, { section, link });
  }
  entries = list.map((endpoint) => {
    const fold = endpointFold(document_, endpoint, serverAddress());
    const { section, link } = sections.get(endpoint.group);
    section.append(fold);
    return { fold, section, link, text: searchable(endpoint) };
  });
  byId("reference").replaceChildren(...[...sections.values()].map(({ section }) => section));
  byId("contents").replaceChildren(...[...sections.values()].map(({ link }) => link));
  search();
  openAddressed();
}

function searchable({ method, path, group, summary, description, parameters, body, replies }) {
  const fields = [parameters, body?.fields ?? [], ...replies.map((reply) => reply.fields)].flat();
  const words = fields.flatMap(({ name, meaning }) => [name, meaning]);
  return [method, path, group, summary, description, ...words].join("\n").toLowerCase();
}

function search() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter((word) => word !== "");
  for (const { fold, text } of entries) fold.hidden = !words.every((word) => text.includes(word));
  for (const { section, link } of entries) {
    const empty = section.querySelector("details:not([hidden])") === null;
    section.hidden = empty;
    link.hidden = empty;
  }
  const shown = entries.filter(({ fold }) => !fold.hidden).length;
  const all = entries.length === 1 ? "1 endpoint" : `${entries.length} endpoints`;
  byId("found").textContent = words.length === 0 ? all : `${shown} of ${all}`;
}

/** Open the endpoint that the page's address names. */
function openAddressed() {
  const fold = document.getElementById(location.hash.slice(1));
  if (fold instanceof HTMLDetailsElement) {
    fold.open = true;
    fold.scrollIntoView();
  }
}

byId("search").addEventListener("input", search);
addEventListener("hashchange", openAddressed);

try {
  show(await askJson("openapi.json"));
} catch (error) {
  showError(`The description of the API cannot be read: ${error.message}`);
}
