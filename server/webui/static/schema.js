// JSON Schema in a few words: the type, range and default of one value. Pure: knows no page.

const HOPS = 32; // references to references; more are a circle

/** What a node means once its local `$ref` is followed; keys beside the reference count, too. */
export function resolve(document, node) {
  let found = node;
  for (let hop = 0; hop < HOPS && typeof found?.$ref === "string"; hop += 1) {
    const { $ref, ...beside } = found;
    found = { ...lookUp(document, $ref), ...beside };
  }
  return found ?? {};
}

function lookUp(document, reference) {
  if (!reference.startsWith("#/")) return {};
  const keys = reference.slice(2).split("/").map((key) => decodeURIComponent(key).replaceAll("~1", "/").replaceAll("~0", "~"));
  return keys.reduce((node, key) => (node && Object.hasOwn(node, key) ? node[key] : undefined), document) ?? {};
}

/**
 * A schema with its references followed, the parts of `allOf` joined, and `anyOf` or `oneOf` of one kind and
 * null taken as that kind. `variants` are the kinds that are left; `source` tells circles.
 */
export function flatten(document, schema) {
  const source = typeof schema?.$ref === "string" ? schema.$ref : schema;
  let whole = resolve(document, schema);
  for (const part of whole.allOf ?? []) whole = join(flatten(document, part), whole);
  const kinds = [...(whole.anyOf ?? []), ...(whole.oneOf ?? [])];
  const real = kinds.filter((kind) => resolve(document, kind).type !== "null");
  if (real.length === 1) {
    const { anyOf, oneOf, ...outer } = whole;
    const inner = flatten(document, real[0]);
    return { ...inner, ...outer, nullable: real.length < kinds.length, source: inner.source };
  }
  return { ...whole, variants: real, nullable: real.length < kinds.length, source };
}

function join(part, whole) {
  const { allOf, ...rest } = whole;
  return {
    ...part,
    ...rest,
    properties: { ...part.properties, ...rest.properties },
    required: [...(part.required ?? []), ...(rest.required ?? [])],
  };
}

/** A value for a table: type, default, range and meaning as text. */
export function describe(document, schema) {
  const whole = flatten(document, schema);
  // An object's fields have rows, and defaults, of their own.
  const usual = whole.properties ? undefined : whole.default;
  return {
    type: typeText(document, schema),
    default: usual === undefined ? null : JSON.stringify(usual),
    range: rangeText(whole),
    meaning: whole.description ?? "",
  };
}

function typeText(document, schema, depth = 0) {
  const whole = flatten(document, schema);
  const kinds = whole.variants?.length > 0 && depth < HOPS
    ? whole.variants.map((kind) => typeText(document, kind, depth + 1))
    : [].concat(whole.type ?? []).map((type) => oneType(document, whole, type, depth));
  if (whole.nullable) kinds.push("null");
  if (whole.const !== undefined) return JSON.stringify(whole.const);
  if (whole.enum) return whole.enum.map((value) => JSON.stringify(value)).join(" | ");
  return [...new Set(kinds)].join(" or ") || "any";
}

function oneType(document, whole, type, depth) {
  if (depth >= HOPS) return type;
  if (type === "array") return whole.items ? `list of ${typeText(document, whole.items, depth + 1)}` : "list";
  if (type === "object" && typeof whole.additionalProperties === "object" && !whole.properties) {
    return `object of ${typeText(document, whole.additionalProperties, depth + 1)}`;
  }
  return whole.format ? `${type} (${whole.format})` : type;
}

function rangeText(whole) {
  const texts = [
    span(whole.minimum, whole.maximum, ""),
    whole.exclusiveMinimum !== undefined ? `more than ${whole.exclusiveMinimum}` : null,
    whole.exclusiveMaximum !== undefined ? `less than ${whole.exclusiveMaximum}` : null,
    whole.multipleOf !== undefined ? `a multiple of ${whole.multipleOf}` : null,
    span(whole.minLength, whole.maxLength, " characters"),
    span(whole.minItems, whole.maxItems, " items"),
    whole.pattern !== undefined ? `matches ${whole.pattern}` : null,
  ];
  return texts.filter((text) => text !== null).join(", ");
}

function span(least, most, unit) {
  if (least !== undefined && most !== undefined) return `${least} to ${most}${unit}`;
  if (least !== undefined) return `at least ${least}${unit}`;
  return most !== undefined ? `at most ${most}${unit}` : null;
}
