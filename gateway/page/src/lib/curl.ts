/** A route of an OpenAPI document as a command line. */

import type { Json, Operation, Parameter } from "./openapi.ts";
import { exampleOf, examplesOf } from "./schema.ts";

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** A command line that calls the route, for a POSIX shell. `origin`: scheme and host, without a slash at the end. */
export function curl(document: Json, operation: Operation, origin: string): string {
  const value = (p: Parameter) => {
    const made = p.example ?? exampleOf(document, p.schema, "request");
    // "string" says nothing; the parameter's own name says what to put there.
    return String(made === undefined || made === null || made === "string" ? p.name : made);
  };
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
    const example = examplesOf(document, content, "request")[0];
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
