// An OpenAPI 3.1 document as a list of endpoints with flat fields. Pure: knows no page.

import { describe, flatten, resolve } from "./schema.js";

const METHODS = ["get", "post", "put", "patch", "delete", "head", "options"];
const DEEPEST = 5; // levels of nested fields; deeper ones are said by their type alone

/** All endpoints, in the document's order. */
export function endpoints(document) {
  return Object.entries(document.paths ?? {}).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => endpoint(document, path, item, method)));
}

/** Names and descriptions of the groups: the document's own first, then those that only endpoints name. */
export function groups(document, list) {
  const found = new Map((document.tags ?? []).map(({ name, description }) => [name, description ?? ""]));
  for (const { group } of list) if (!found.has(group)) found.set(group, "");
  return [...found].filter(([name]) => list.some(({ group }) => group === name))
    .map(([name, description]) => ({ name, description }));
}

function endpoint(document, path, item, method) {
  const operation = item[method];
  const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])]
    .map((parameter) => parameterField(document, resolve(document, parameter)));
  const security = operation.security ?? document.security ?? [];
  return {
    method: method.toUpperCase(),
    path,
    group: operation.tags?.[0] ?? "Other",
    summary: operation.summary ?? "",
    description: operation.description ?? "",
    deprecated: operation.deprecated === true,
    locked: security.length > 0 && !security.some((way) => Object.keys(way).length === 0),
    parameters,
    body: operation.requestBody ? content(document, resolve(document, operation.requestBody)) : null,
    replies: Object.entries(operation.responses ?? {})
      .map(([status, reply]) => ({ status, ...content(document, resolve(document, reply)) })),
  };
}

function parameterField(document, parameter) {
  const field = describe(document, parameter.schema ?? {});
  const meaning = parameter.description ?? field.meaning;
  return { ...field, name: parameter.name, place: parameter.in, required: parameter.required === true, meaning };
}

function content(document, { description = "", content: kinds = {} }) {
  const type = "application/json" in kinds ? "application/json" : Object.keys(kinds)[0] ?? null;
  const media = type === null ? {} : kinds[type];
  const schema = media.schema ?? null;
  return {
    description,
    type,
    schema,
    fields: schema === null ? [] : fieldsOf(document, schema),
    example: media.example ?? resolve(document, Object.values(media.examples ?? {})[0] ?? {}).value,
  };
}

/** The fields of an object, those of objects inside it after it as `outer.inner` and `list[].inner`. */
export function fieldsOf(document, schema, prefix = "", above = []) {
  const whole = flatten(document, schema);
  if (above.includes(whole.source) || above.length >= DEEPEST) return [];
  const path = [...above, whole.source];
  if (whole.items) return fieldsOf(document, whole.items, `${prefix}[].`, path);
  if (whole.variants.length > 0) return unique(whole.variants.flatMap((one) => fieldsOf(document, one, prefix, path)));
  const required = whole.required ?? [];
  return Object.entries(whole.properties ?? {}).flatMap(([name, property]) => {
    const field = { ...describe(document, property), name: prefix + name, required: required.includes(name) };
    const list = flatten(document, property).items !== undefined;
    return [field, ...fieldsOf(document, property, prefix + name + (list ? "" : "."), path)];
  });
}

function unique(fields) {
  return [...new Map(fields.map((field) => [field.name, field])).values()];
}
