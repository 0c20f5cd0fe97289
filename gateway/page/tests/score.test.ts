import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeProblem, decodeScore } from "../src/lib/score.ts";

const item = {
  irony: { label: "ironic", probabilities: { "not ironic": 0.2, ironic: 0.8 } },
  sentiment: { label: "positive", probabilities: { negative: 0.1, neutral: 0.2, positive: 0.7 } },
  polarity: 0.6,
  confidence: 0.7,
  language: null,
  tokens: 12,
  truncated: false,
  model: { name: "m", revision: "r", precision: "fp32" },
};

test("a score alone or as the only result, sentiment first", () => {
  for (const body of [item, { results: [item] }]) {
    const outcome = decodeScore(body);
    assert.ok(outcome?.ok);
    assert.deepEqual(outcome.score.heads.map((h) => h.name), ["sentiment", "irony"]);
    assert.deepEqual(outcome.score.heads[0]?.probabilities, [["negative", 0.1], ["neutral", 0.2], ["positive", 0.7]]);
    assert.equal(outcome.score.language, null);
    assert.equal(outcome.score.model, "m · fp32");
    assert.equal(outcome.score.inDomain, null);
  }
});

test("a text in a language that the model does not know is told from one of which nobody knows", () => {
  for (const known of [true, false]) {
    const outcome = decodeScore({ ...item, in_domain: known });
    assert.ok(outcome?.ok);
    assert.equal(outcome.score.inDomain, known);
  }
});

test("a result that failed is a problem; what is no score is refused", () => {
  const outcome = decodeScore({ results: [{ error: { title: "Text is too long", detail: "at most 9", status: 422 } }] });
  assert.deepEqual(outcome, { ok: false, problem: { title: "Text is too long", detail: "at most 9", status: 422 } });
  for (const body of [null, [], {}, { results: [] }, { polarity: 1 }]) assert.equal(decodeScore(body), null);
});

test("problems are told with their mend and their waiting time, whatever the body is", () => {
  assert.deepEqual(decodeProblem({ title: "Busy", detail: "the queue is full", status: 429 }, 429, "2"), {
    title: "Busy",
    detail: "the queue is full; try again in 2 s",
    status: 429,
  });
  assert.equal(decodeProblem(null, 502).status, 502);
  assert.equal(decodeProblem("<html>", 502).detail, null);
});
