import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeOverview, perSecond } from "../src/lib/overview.ts";

test("an overview without a time, or that is no object, is refused", () => {
  for (const value of [null, 7, "x", [], {}, { now_ms: "1" }, { now_ms: NaN }]) assert.equal(decodeOverview(value), null);
});

test("everything that is missing has its neutral value", () => {
  const overview = decodeOverview({ now_ms: 5 });
  assert.deepEqual(overview?.totals, { events: 0, scored: 0, dead: 0, negative: 0, neutral: 0, positive: 0 });
  assert.deepEqual(overview?.latest, []);
  assert.deepEqual(overview?.topics, { bucketSeconds: 60, startS: 0, buckets: 0, series: [] });
  assert.equal(overview?.startedMs, null);
});

test("fields of the wrong type never throw", () => {
  const junk = [null, 1, "x", true, [], {}, [[]], [{}], [null], [1, 2], { a: 1 }];
  const keys = ["started_ms", "model", "rate", "totals", "lag", "topics", "latest", "dead"];
  for (const key of keys) for (const value of junk) assert.ok(decodeOverview({ now_ms: 1, [key]: value }), `${key}`);
  for (const value of junk) {
    assert.ok(decodeOverview({ now_ms: 1, rate: { history: value }, topics: { series: value, buckets: value }, dead: { latest: value } }));
  }
});

test("series are brought to the number of buckets, polarity into [-1, 1], gaps stay gaps", () => {
  const overview = decodeOverview({
    now_ms: 1,
    topics: { buckets: 4, series: [{ topic: "tea", count: [1, -2, 3], polarity: [0.5, null, 9, -3, 0] }] },
  });
  assert.deepEqual(overview?.topics.series, [{ topic: "tea", count: [1, 0, 3, 0], polarity: [0.5, null, 1, -1] }]);
});

test("a lag that is not known is told from none", () => {
  const lag = [{ stage: "a", seconds: null }, { stage: "b" }, { stage: "c", seconds: 0 }, { stage: "d", seconds: -2 }, { stage: "e", seconds: 1.5 }];
  assert.deepEqual(decodeOverview({ now_ms: 1, lag })?.lag.map((l) => l.seconds), [null, null, 0, 0, 1.5]);
});

test("of what part a lag is told may be left out", () => {
  const lag = [{ stage: "score", scope: "all processes" }, { stage: "silver.posts", scope: 3 }];
  assert.deepEqual(decodeOverview({ now_ms: 1, lag })?.lag.map((l) => l.scope), ["all processes", null]);
});

test("what would repeat a key of a list is dropped", () => {
  const overview = decodeOverview({
    now_ms: 1,
    lag: [{ stage: "score", posts: 1 }, { stage: "score", posts: 2 }],
    topics: { buckets: 0, series: [{ topic: "a" }, { topic: "a" }, { topic: "" }, { topic: "b" }] },
    latest: [{ uid: "1", text: "new" }, { uid: "1", text: "old" }, { text: "no uid", topics: ["a", "a"] }],
    dead: {},
  });
  assert.deepEqual(overview?.topics.series.map((s) => s.topic), ["a", "b"]);
  assert.deepEqual(overview?.latest.map((p) => p.text), ["new", "no uid"]);
  assert.deepEqual(overview?.latest[1]?.topics, ["a"]);
  assert.deepEqual(overview?.lag.map((l) => l.posts), [1]);
});

test("seconds without posts count 0, and the second that still runs is left out", () => {
  const history: [number, number][] = [[96, 9], [97, 4], [99, 2], [100, 7]];
  assert.deepEqual(perSecond(history, 100_400, 3), [4, 0, 2]);
});
