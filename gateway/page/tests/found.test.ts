import assert from "node:assert/strict";
import { test } from "node:test";
import { outcome } from "../src/lib/ask.ts";
import { decodeResults, pieces } from "../src/lib/found.ts";

test("a highlight is taken apart, and nothing in it is markup", () => {
  assert.deepEqual(pieces("a pot of <em>green</em> <em>tea</em> &amp; rain"), [
    { text: "a pot of ", found: false },
    { text: "green", found: true },
    { text: " ", found: false },
    { text: "tea", found: true },
    { text: " & rain", found: false },
  ]);
  assert.deepEqual(pieces("&lt;em&gt;&amp;lt;&#x27;&#39;&quot;&#x1F600;&nope;"), [{ text: "<em>&lt;''\"😀&nope;", found: false }]);
  assert.deepEqual(pieces("<b>x</b><em>"), [{ text: "<b>x</b>", found: false }]);
  assert.deepEqual(pieces("&#xffffffff;&#0;"), [{ text: "&#xffffffff;&#0;", found: false }]);
});

test("both queries decode, each post once, and no address but a page's", () => {
  const post = { uid: "u", source: "s", text: "t", tags: ["a", "a"], created_at: "2026-05-01T00:00:00Z", url: "https://x.example/1", polarity: 7 };
  const words = decodeResults({ store: "opensearch", total: 12, hits: [{ post, highlights: ["<em>t</em>"] }, { post }] });
  assert.equal(words?.total, 12);
  assert.equal(words?.found.length, 1);
  assert.deepEqual(words?.found[0]?.highlights, [[{ text: "t", found: true }]]);
  assert.deepEqual(words?.found[0]?.post.tags, ["a"]);
  assert.equal(words?.found[0]?.post.polarity, 1);
  const near = decodeResults({ store: "qdrant", neighbours: [{ similarity: 0.9, post: { ...post, url: "javascript:alert(1)" } }] });
  assert.deepEqual([near?.total, near?.found[0]?.similarity, near?.found[0]?.post.url], [null, 0.9, null]);
  for (const body of [null, [], {}, { hits: 1 }]) assert.equal(decodeResults(body), null);
});

test("a store that is not there is no error; everything else that is no value is a problem", () => {
  const gone = { type: "/problems/store-not-configured", title: "no store", status: 404, detail: "set opensearch.url" };
  assert.deepEqual(outcome(404, gone, null, () => 1), { kind: "no-store", mend: "set opensearch.url" });
  assert.equal(outcome(404, { type: "/problems/not-found" }, null, () => 1).kind, "problem");
  assert.equal(outcome(503, null, "2", () => 1).kind, "problem");
  assert.equal(outcome(200, {}, null, () => null).kind, "problem");
  assert.deepEqual(outcome(200, {}, null, () => 1), { kind: "value", value: 1 });
});
