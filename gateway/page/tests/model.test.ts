import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { decodeServed, measuredFor, measuredOf } from "../src/lib/model.ts";
import { readRoute, writeRoute } from "../src/lib/route.ts";

const report = measuredOf(JSON.parse(readFileSync("../../models/report.json", "utf8")));

test("what the page shows of the report is what the report says", () => {
  const sentiment = report.heads.find((head) => head.name === "sentiment");
  assert.ok(sentiment && sentiment.bins.length > 4);
  assert.ok(sentiment.interval[0] < sentiment.value && sentiment.value < sentiment.interval[1]);
  // The bins are of all posts, and their mean accuracy is the head's.
  for (const head of report.heads) {
    assert.ok(Math.abs(head.bins.reduce((sum, bin) => sum + bin.posts, 0) - head.posts) <= 1, head.name);
    const right = head.bins.reduce((sum, bin) => sum + bin.posts * bin.accuracy, 0) / head.posts;
    assert.ok(Math.abs(right - head.accuracy) < 0.002, head.name);
  }
});

test("figures are shown of the model that was measured alone", () => {
  const served = decodeServed({ models: [{ name: "m", revision: report.revision, precision: "bf16", heads: [{ name: "sentiment", labels: ["a"] }] }] });
  assert.ok(served);
  assert.equal(measuredFor(served, report), report);
  assert.equal(measuredFor({ ...served, revision: "another" }, report), null);
  assert.equal(measuredFor({ ...served, revision: "" }, { ...report, revision: "" }), null);
  assert.equal(decodeServed({ models: [] }), null);
});

test("views have addresses; a hash that names none is none", () => {
  assert.equal(readRoute("")?.view, "live");
  assert.equal(readRoute("#content"), null);
  const hash = writeRoute("search", { q: "a & b", tag: "" });
  assert.equal(hash, "#search?q=a+%26+b");
  assert.equal(readRoute(hash)?.params.get("q"), "a & b");
});
