import assert from "node:assert/strict";
import { test } from "node:test";
import { curl } from "../src/lib/curl.ts";
import { groups, resolve } from "../src/lib/openapi.ts";
import { constraints, exampleOf, examplesOf, properties, typeName } from "../src/lib/schema.ts";

const document = {
  tags: [{ name: "score" }, { name: "unused" }],
  paths: {
    "/v1/score": {
      post: {
        tags: ["score"],
        requestBody: { content: { "application/json": { schema: { $ref: "#/components/schemas/Request" } } } },
        responses: { "400": { $ref: "#/components/responses/Problem" } },
      },
    },
    "/v1/posts/{id}": {
      parameters: [{ name: "id", in: "path", required: true, schema: { type: "string" } }],
      get: { parameters: [{ name: "id", in: "path", required: true, schema: { type: "string" }, example: "a b" }] },
      delete: {},
    },
    "/v1/live": { get: { responses: { "200": { content: { "text/event-stream": {} } } } } },
  },
  components: {
    responses: { Problem: { description: "wrong" } },
    schemas: {
      Request: {
        type: "object",
        required: ["text"],
        properties: { text: { type: "string", example: "it's" }, id: { type: ["string", "null"] }, lane: { $ref: "#/components/schemas/Lane" } },
      },
      Lane: { type: "string", enum: ["interactive", "bulk"] },
      Tree: { type: "object", properties: { children: { type: "array", items: { $ref: "#/components/schemas/Tree" } } } },
      Loop: { $ref: "#/components/schemas/Loop" },
      Part: { allOf: [{ $ref: "#/components/schemas/Request" }, { properties: { more: { type: "integer", minimum: 3 } } }] },
    },
  },
};
const named = (name: string) => ({ $ref: `#/components/schemas/${name}` });

test("routes are grouped by tag, the untagged last, empty groups left out", () => {
  assert.deepEqual(groups(document).map((g) => [g.name, g.operations.map((o) => `${o.method} ${o.path}`)]), [
    ["score", ["POST /v1/score"]],
    ["other", ["GET /v1/posts/{id}", "DELETE /v1/posts/{id}", "GET /v1/live"]],
  ]);
  const anchors = groups(document).flatMap((g) => g.operations.map((o) => o.anchor));
  assert.equal(new Set(anchors).size, anchors.length);
  assert.equal(groups(document)[0]?.operations[0]?.answers[0]?.description, "wrong");
});

test("references are followed, and cycles end", () => {
  assert.equal(resolve(document, named("Lane")).type, "string");
  assert.deepEqual(resolve(document, named("Loop")), {});
  assert.deepEqual(exampleOf(document, named("Tree"), "answer"), { children: [] });
  assert.deepEqual(resolve(document, { $ref: "#/no/where" }), {});
});

test("examples: what may be null is left out of requests and shown in answers", () => {
  assert.deepEqual(exampleOf(document, named("Request"), "request"), { text: "it's", lane: "interactive" });
  assert.deepEqual(exampleOf(document, named("Request"), "answer"), { text: "it's", id: "string", lane: "interactive" });
  assert.deepEqual(examplesOf(document, { media: "text/plain", schema: { type: "string" }, examples: [] }, "answer"), []);
});

test("types and limits in words", () => {
  assert.equal(typeName(document, { type: ["string", "null"] }), "string or null");
  assert.equal(typeName(document, { type: "array", items: named("Request") }), "list of Request");
  assert.equal(typeName(document, { oneOf: [{ type: "null" }, named("Request")] }), "null or Request");
  assert.equal(typeName(document, { type: "object", additionalProperties: { type: "number" } }), "map of number");
  assert.deepEqual(properties(document, named("Part")).map((p) => p.name), ["text", "id", "lane", "more"]);
  assert.deepEqual(constraints(document, named("Lane")), ['one of "interactive", "bulk"']);
});

test("command lines: quoted for the shell, parameters filled in, streams unbuffered", () => {
  const [score, get, remove, live] = groups(document).flatMap((g) => g.operations);
  const origin = "http://127.0.0.1:8080";
  assert.equal(
    curl(document, score!, origin),
    `curl -s ${origin}/v1/score \\\n  -H 'content-type: application/json' \\\n  --data '{"text":"it'\\''s","lane":"interactive"}'`,
  );
  assert.equal(curl(document, get!, origin), `curl -s ${origin}/v1/posts/a%20b`);
  assert.equal(curl(document, remove!, origin), `curl -s -X DELETE ${origin}/v1/posts/id`);
  assert.equal(curl(document, live!, origin), `curl -s -N ${origin}/v1/live`);
});
