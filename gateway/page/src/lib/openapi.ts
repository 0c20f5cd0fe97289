/**
 * Reads an OpenAPI 3.1 document into what the reference shows: routes by group, with every `$ref` into the document resolved.
 *
 * Guarantee: any JSON gives a result, cyclic references included; what is missing or not understood is left out.
 */

export type Json = Record<string, unknown>;

export interface Content {
  media: string;
  schema: Json | null;
  examples: { name: string; value: unknown }[];
}
export interface Parameter {
  name: string;
  place: string;
  required: boolean;
  description: string;
  schema: Json;
  example: unknown;
}
export interface Answer {
  status: string;
  description: string;
  headers: { name: string; description: string }[];
  contents: Content[];
}
export interface Operation {
  /** Unique in the document, fit for an address fragment. */
  anchor: string;
  method: string;
  path: string;
  summary: string;
  description: string;
  deprecated: boolean;
  parameters: Parameter[];
  body: { required: boolean; description: string; contents: Content[] } | null;
  answers: Answer[];
}
export interface Group {
  name: string;
  description: string;
  operations: Operation[];
}

const METHODS = ["get", "post", "put", "patch", "delete", "head", "options", "trace"] as const;
const UNGROUPED = "other";

export const object = (value: unknown): Json =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};
export const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);
export const string = (value: unknown): string => (typeof value === "string" ? value : "");

/** Follows `$ref` until something else is found; siblings of a `$ref` (3.1 allows them) win over what it names. */
export function resolve(document: Json, value: unknown): Json {
  let node = object(value);
  for (const seen = new Set<string>(); typeof node.$ref === "string"; ) {
    const { $ref, ...siblings } = node;
    if (seen.has($ref as string)) return siblings;
    seen.add($ref as string);
    node = { ...pointed(document, $ref as string), ...siblings };
  }
  return node;
}

/** The last part of a reference, which is the schema's name: `#/components/schemas/Score` gives Score. */
export function refName(value: unknown): string | null {
  const ref = object(value).$ref;
  return typeof ref === "string" ? decodePointer(ref.slice(ref.lastIndexOf("/") + 1)) : null;
}

function pointed(document: Json, ref: string): Json {
  if (!ref.startsWith("#/")) return {};
  let node: unknown = document;
  for (const part of ref.slice(2).split("/")) node = (Array.isArray(node) ? {} : object(node))[decodePointer(part)];
  return object(node);
}

function decodePointer(part: string): string {
  const plain = part.replaceAll("~1", "/").replaceAll("~0", "~");
  try {
    return decodeURIComponent(plain);
  } catch {
    return plain;
  }
}

/** The operations under their tags, in the order of the document's `tags`, then of first use; a route may stand in several. */
export function groups(document: Json): Group[] {
  const found = new Map<string, Group>();
  for (const tag of list(document.tags).map(object)) {
    const name = string(tag.name);
    if (name) found.set(name, { name, description: string(tag.description), operations: [] });
  }
  for (const [path, item] of Object.entries(object(document.paths))) {
    const routes = resolve(document, item);
    for (const method of METHODS) {
      if (typeof routes[method] !== "object" || routes[method] === null) continue;
      const raw = object(routes[method]);
      const tags = list(raw.tags).map(string).filter((tag) => tag !== "");
      for (const name of tags.length > 0 ? tags : [UNGROUPED]) {
        const group = found.get(name) ?? { name, description: "", operations: [] };
        found.set(name, group);
        group.operations.push(operation(document, method, path, raw, list(routes.parameters), name));
      }
    }
  }
  return [...found.values()].filter((group) => group.operations.length > 0);
}

function operation(document: Json, method: string, path: string, raw: Json, shared: unknown[], group: string): Operation {
  const body = raw.requestBody === undefined ? null : resolve(document, raw.requestBody);
  // A parameter of the operation replaces one of the path with the same name and place.
  const parameters = new Map(
    [...shared, ...list(raw.parameters)].map((p) => parameter(document, p)).map((p) => [`${p.place} ${p.name}`, p]),
  );
  return {
    anchor: `${group}-${method}-${path}`.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/-$/, ""),
    method: method.toUpperCase(),
    path,
    summary: string(raw.summary) || string(raw.operationId) || `${method.toUpperCase()} ${path}`,
    description: string(raw.description),
    deprecated: raw.deprecated === true,
    parameters: [...parameters.values()],
    body: body && { required: body.required === true, description: string(body.description), contents: contents(document, body.content) },
    answers: Object.entries(object(raw.responses)).map(([status, value]) => {
      const answer = resolve(document, value);
      return {
        status,
        description: string(answer.description),
        headers: Object.entries(object(answer.headers)).map(([name, header]) => ({
          name,
          description: string(resolve(document, header).description),
        })),
        contents: contents(document, answer.content),
      };
    }),
  };
}

function parameter(document: Json, value: unknown): Parameter {
  const raw = resolve(document, value);
  const schema = object(raw.schema);
  const named = Object.values(object(raw.examples)).map((e) => resolve(document, e).value);
  return {
    name: string(raw.name),
    place: string(raw.in),
    required: raw.required === true,
    description: string(raw.description) || string(resolve(document, schema).description),
    schema,
    example: raw.example ?? named[0],
  };
}

function contents(document: Json, value: unknown): Content[] {
  return Object.entries(object(value)).map(([media, raw]) => {
    const content = object(raw);
    const named = Object.entries(object(content.examples)).map(([name, example]) => {
      const resolved = resolve(document, example);
      return { name: string(resolved.summary) || name, value: resolved.value };
    });
    const single = content.example === undefined ? [] : [{ name: "", value: content.example }];
    return { media, schema: content.schema === undefined ? null : object(content.schema), examples: [...single, ...named] };
  });
}

/** Examples of a content as written, or one made up from its schema. */
export function examplesOf(document: Json, content: Content): { name: string; text: string }[] {
  const written = content.examples.filter((e) => e.value !== undefined);
  const shown = written.length > 0 || !content.schema ? written : [{ name: "", value: exampleOf(document, content.schema) }];
  return shown.map(({ name, value }) => ({ name, text: asText(value) }));
}

const asText = (value: unknown): string => (typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? ""));

/** A value that fits a schema: its example, default or first enum member, else a plain one of its type. */
export function exampleOf(document: Json, schema: unknown, trail: readonly string[] = []): unknown {
  const name = refName(schema);
  if (name !== null && trail.includes(name)) return null;
  const path = name === null ? trail : [...trail, name];
  const node = resolve(document, schema);
  if (path.length > 12) return null;
  for (const candidate of [node.example, list(node.examples)[0], node.const, node.default, list(node.enum)[0]]) {
    if (candidate !== undefined) return candidate;
  }
  const alternatives = [...list(node.oneOf), ...list(node.anyOf)].filter((s) => resolve(document, s).type !== "null");
  if (alternatives.length > 0) return exampleOf(document, alternatives[0], path);
  const type = types(node).find((t) => t !== "null");
  if (type === "object" || node.properties || node.allOf) {
    const out: Json = {};
    for (const property of properties(document, node)) {
      // Properties that may be null and are not required are left out: an example shows the usual case.
      if (!property.required && types(resolve(document, property.schema)).includes("null")) continue;
      out[property.name] = exampleOf(document, property.schema, path);
    }
    return out;
  }
  if (type === "array") {
    const items = node.prefixItems ? list(node.prefixItems) : [node.items ?? {}];
    return items.map((item) => exampleOf(document, item, path)).filter((item) => item !== null);
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

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** A command line that calls the route, for a POSIX shell. `origin`: scheme and host, without a slash at the end. */
export function curl(document: Json, operation: Operation, origin: string): string {
  const value = (p: Parameter) => String(p.example ?? exampleOf(document, p.schema) ?? p.name);
  let path = operation.path;
  const query: string[] = [];
  const lines: string[] = [];
  for (const p of operation.parameters) {
    if (p.place === "path") path = path.replace(`{${p.name}}`, encodeURIComponent(value(p)));
    if (p.place === "query" && p.required) query.push(`${encodeURIComponent(p.name)}=${encodeURIComponent(value(p))}`);
    if (p.place === "header" && p.required) lines.push(`-H ${quoted(`${p.name}: ${value(p)}`)}`);
  }
  const content = operation.body?.contents[0];
  if (content) {
    lines.push(`-H ${quoted(`content-type: ${content.media}`)}`);
    const example = examplesOf(document, content)[0];
    if (example) lines.push(`--data ${quoted(compact(example.text))}`);
  }
  const streams = operation.answers.some((a) => a.contents.some((c) => c.media === "text/event-stream"));
  const flags = ["-s", ...(streams ? ["-N"] : []), ...(operation.method === "GET" || (operation.method === "POST" && content) ? [] : [`-X ${operation.method}`])];
  const address = `${origin}${path}${query.length > 0 ? `?${query.join("&")}` : ""}`;
  // Plain addresses read better without quotes.
  const shown = /^[\w:/.%~-]+$/.test(address) ? address : quoted(address);
  return [`curl ${flags.join(" ")} ${shown}`, ...lines].join(" \\\n  ");
}

/** JSON on one line, anything else as it is. */
function compact(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    return text;
  }
}
