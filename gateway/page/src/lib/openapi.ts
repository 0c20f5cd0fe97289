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
  const shown = [...found.values()].filter((group) => group.operations.length > 0);
  // Two paths may differ only in signs that a fragment does not keep.
  const taken = new Set<string>();
  for (const operation of shown.flatMap((group) => group.operations)) {
    for (let n = 2, base = operation.anchor; taken.has(operation.anchor); n++) operation.anchor = `${base}-${n}`;
    taken.add(operation.anchor);
  }
  return shown;
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
