/** Schemas of an OpenAPI 3.1 document in words and examples. Like `openapi.ts`: any JSON gives a result, cycles included. */

import { list, object, refName, resolve, string, type Content, type Json } from "./openapi.ts";

/** Whose value an example shows: a request leaves out what may be null, an answer usually holds it. */
export type Side = "request" | "answer";

/** Examples of a content as written, or one made up from its schema where that says more than "a string". */
export function examplesOf(document: Json, content: Content, side: Side): { name: string; text: string }[] {
  const written = content.examples.filter((e) => e.value !== undefined);
  if (written.length > 0 || !content.schema) return written.map(({ name, value }) => ({ name, text: asText(value) }));
  const made = exampleOf(document, content.schema, side);
  return made === "string" || made === null ? [] : [{ name: "", text: asText(made) }];
}

const asText = (value: unknown): string => (typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? ""));

/** A value that fits a schema: its example, default or first enum member, else a plain one of its type. */
export function exampleOf(document: Json, schema: unknown, side: Side, trail: readonly string[] = []): unknown {
  const name = refName(schema);
  if (name !== null && trail.includes(name)) return null;
  const path = name === null ? trail : [...trail, name];
  const node = resolve(document, schema);
  if (path.length > 12) return null;
  for (const candidate of [node.example, list(node.examples)[0], node.const, node.default, list(node.enum)[0]]) {
    if (candidate !== undefined) return candidate;
  }
  const alternatives = [...list(node.oneOf), ...list(node.anyOf)].filter((s) => resolve(document, s).type !== "null");
  if (alternatives.length > 0) return exampleOf(document, alternatives[0], side, path);
  const type = types(node).find((t) => t !== "null");
  if (type === "object" || node.properties || node.allOf) {
    const out: Json = {};
    for (const property of properties(document, node)) {
      const optional = !property.required && types(resolve(document, property.schema)).includes("null");
      if (side === "answer" || !optional) out[property.name] = exampleOf(document, property.schema, side, path);
    }
    if (Object.keys(out).length === 0 && typeof node.additionalProperties === "object") {
      out.name = exampleOf(document, node.additionalProperties, side, path);
    }
    return out;
  }
  if (type === "array") {
    const items = node.prefixItems ? list(node.prefixItems) : [node.items ?? {}];
    return items.map((item) => exampleOf(document, item, side, path)).filter((item) => item !== null);
  }
  if (type === "integer" || type === "number") return Math.max(0, Number(node.minimum ?? 0));
  if (type === "boolean") return false;
  if (type === "string") return { "date-time": "2026-01-31T12:00:00Z", uuid: "00000000-0000-4000-8000-000000000000" }[string(node.format)] ?? "string";
  return null;
}

export function types(schema: Json): string[] {
  return Array.isArray(schema.type) ? schema.type.map(string) : typeof schema.type === "string" ? [schema.type] : [];
}

export interface Property {
  name: string;
  schema: Json;
  required: boolean;
}

/** The properties of an object schema, those of its `allOf` parts included. */
export function properties(document: Json, schema: unknown, depth = 0): Property[] {
  const node = resolve(document, schema);
  const required = new Set(list(node.required).map(string));
  const own = Object.entries(object(node.properties)).map(([name, property]) => ({
    name,
    schema: object(property),
    required: required.has(name),
  }));
  const inherited = depth > 8 ? [] : list(node.allOf).flatMap((part) => properties(document, part, depth + 1));
  const merged = new Map([...inherited, ...own].map((p) => [p.name, { ...p, required: p.required || required.has(p.name) }]));
  return [...merged.values()];
}

/** A schema's type in words: "string or null", "list of Score", "map of number". */
export function typeName(document: Json, schema: unknown, depth = 0): string {
  const name = refName(schema);
  const node = resolve(document, schema);
  if (name !== null && (node.properties || node.allOf || node.oneOf || node.anyOf)) return name;
  if (depth > 6) return name ?? "any";
  const either = [...list(node.oneOf), ...list(node.anyOf)].map((s) => typeName(document, s, depth + 1));
  if (either.length > 0) return [...new Set(either)].join(" or ");
  if (node.const !== undefined) return JSON.stringify(node.const) ?? "any";
  if (node.allOf && types(node).length === 0) return list(node.allOf).map((s) => typeName(document, s, depth + 1)).join(" with ");
  const named = types(node).map((type) => {
    if (type === "array") {
      if (node.prefixItems) return `[${list(node.prefixItems).map((s) => typeName(document, s, depth + 1)).join(", ")}]`;
      return node.items === undefined ? "list" : `list of ${typeName(document, node.items, depth + 1)}`;
    }
    if (type === "object" && !node.properties && typeof node.additionalProperties === "object") {
      return `map of ${typeName(document, node.additionalProperties, depth + 1)}`;
    }
    const format = string(node.format);
    return format && type !== "null" ? `${type} (${format})` : type;
  });
  return named.length > 0 ? named.join(" or ") : node.properties ? "object" : "any";
}

/** What limits a value, in words. */
export function constraints(document: Json, schema: unknown): string[] {
  const node = resolve(document, schema);
  const out: string[] = [];
  const say = (key: string, words: (value: string) => string) => {
    const value = node[key];
    if (typeof value === "number" || typeof value === "string" || typeof value === "boolean") out.push(words(String(value)));
  };
  if (Array.isArray(node.enum)) out.push(`one of ${node.enum.map((v) => JSON.stringify(v)).join(", ")}`);
  say("minimum", (v) => `at least ${v}`);
  say("maximum", (v) => `at most ${v}`);
  say("minLength", (v) => `at least ${v} characters`);
  say("maxLength", (v) => `at most ${v} characters`);
  say("minItems", (v) => `at least ${v} items`);
  say("maxItems", (v) => `at most ${v} items`);
  say("pattern", (v) => `matches ${v}`);
  if (node.default !== undefined && node.default !== null) out.push(`default ${JSON.stringify(node.default)}`);
  return out;
}
