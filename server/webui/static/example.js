// A request that one can paste into a shell. Pure: knows no page.

import { flatten } from "./schema.js";

const DEEPEST = 4;

// What a request is about, for bodies that require no field at all.
const MAIN = ["prompt", "messages", "input", "text"];

/** The curl command for an endpoint of the server at `address`. */
export function curl(document, endpoint, address) {
  const { method, path, parameters, body, locked } = endpoint;
  const words = [`curl ${quoted(address + path + query(parameters))}`];
  const usual = body === null ? "GET" : "POST";
  if (method !== usual) words[0] = `curl -X ${method} ${quoted(address + path + query(parameters))}`;
  if (locked) words.push("-H 'Authorization: Bearer KEY'");
  if (body !== null) words.push(...payload(document, body));
  return words.join(" \\\n  ");
}

function query(parameters) {
  const needed = parameters.filter(({ place, required }) => place === "query" && required);
  return needed.length === 0 ? "" : `?${needed.map(({ name }) => `${encodeURIComponent(name)}=…`).join("&")}`;
}

function payload(document, { type, schema, example }) {
  const value = example ?? (schema === null ? {} : sample(document, schema));
  if (type === "multipart/form-data") {
    return Object.keys(value ?? {}).map((name) => `-F ${quoted(`${name}=@FILE`)}`);
  }
  return [`-H 'Content-Type: ${type}'`, `-d ${quoted(JSON.stringify(value, null, 1).replace(/\n\s*/g, " "))}`];
}

/** A value that the schema admits: its own example, or the least that it requires. */
export function sample(document, schema, depth = 0) {
  const whole = flatten(document, schema);
  const given = whole.example ?? whole.examples?.[0] ?? whole.const ?? whole.enum?.[0] ?? whole.default;
  if (given !== undefined && given !== null && given !== "" && !isEmptyList(given)) return given;
  if (whole.variants?.length > 0 && depth < DEEPEST) return sample(document, whole.variants[0], depth + 1);
  const type = [].concat(whole.type ?? [])[0];
  if (type === "object" || whole.properties) return sampleObject(document, whole, depth);
  if (type === "array") return whole.items && depth < DEEPEST ? [sample(document, whole.items, depth + 1)] : [];
  if (type === "integer" || type === "number") return whole.minimum ?? 1;
  if (type === "boolean") return true;
  return "text";
}

function sampleObject(document, whole, depth) {
  if (depth >= DEEPEST) return {};
  const names = Object.keys(whole.properties ?? {});
  const required = names.filter((name) => whole.required?.includes(name));
  const main = names.filter((name) => MAIN.includes(name));
  const chosen = [required, main, names.slice(0, 1)].find((some) => some.length > 0) ?? [];
  return Object.fromEntries(chosen.map((name) => [name, sample(document, whole.properties[name], depth + 1)]));
}

function isEmptyList(value) {
  return Array.isArray(value) && value.length === 0;
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
