import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeTags, decodeTrend, labelShare, readChoice, selectionName, seriesParams, writeChoice, type Choice } from "../src/lib/trend.ts";

const point = (start: string, label: string | null, posts: number, mean: number | null) => ({ start, label, posts, mean_polarity: mean });

test("a series stands on an axis with every window, means weighed by posts", () => {
  const trend = decodeTrend(
    {
      store: "tables",
      window: "1h",
      from: "2026-05-01T10:00:00Z",
      to: "2026-05-01T14:00:00Z",
      points: [
        point("2026-05-01T11:00:00Z", "positive", 3, 0.6),
        point("2026-05-01T11:00:00Z", "negative", 1, -0.6),
        point("2026-05-01T13:00:00Z", null, 2, null),
        point("2026-05-01T14:00:00Z", "positive", 9, 0.9),
        point("yesterday", "positive", 9, 0.9),
      ],
    },
    "x",
  );
  assert.ok(trend);
  assert.deepEqual([trend.buckets, trend.bucketSeconds, trend.store], [4, 3600, "tables"]);
  assert.deepEqual(trend.series.count, [0, 4, 0, 2]);
  assert.deepEqual(trend.series.polarity.map((p) => p?.toFixed(2) ?? null), [null, "0.30", null, null]);
  assert.equal(labelShare(trend, "positive"), 0.5);
  assert.equal(labelShare(trend, "neutral"), 0);
});

test("what is no series is refused", () => {
  const times = { from: "2026-05-01T10:00:00Z", to: "2026-05-01T11:00:00Z" };
  for (const body of [null, [], {}, times, { ...times, to: times.from, points: [] }, { from: "a", to: "b", points: [] }]) {
    assert.equal(decodeTrend(body, "x"), null);
  }
  const empty = decodeTrend({ ...times, window: "1m", points: [] }, "x");
  assert.equal(empty?.buckets, 60);
  assert.equal(empty && labelShare(empty, "positive"), null);
});

test("a choice survives its address", () => {
  const choices: Choice[] = [
    { span: "hour", window: "1m", first: { kind: "all", value: "" }, second: null },
    { span: "day", window: "1m", first: { kind: "tag", value: "a:b & c" }, second: { kind: "all", value: "" } },
    { span: "week", window: "1h", first: { kind: "source", value: "reddit" }, second: { kind: "language", value: "eng" } },
  ];
  for (const choice of choices) assert.deepEqual(readChoice(new URLSearchParams(writeChoice(choice))), choice);
});

test("an address that makes no sense is the usual choice", () => {
  const usual = { span: "hour", window: "1m", first: { kind: "all", value: "" }, second: null };
  assert.deepEqual(readChoice(new URLSearchParams("span=year&window=1h&a=&b=")), usual);
  assert.equal(readChoice(new URLSearchParams("span=week&window=1m")).window, "1h");
  assert.deepEqual(readChoice(new URLSearchParams("a=tag:")).first, { kind: "all", value: "" });
});

test("a selection is asked for by its own parameter, and called by its name", () => {
  const choice = readChoice(new URLSearchParams("span=day"));
  const at = Date.UTC(2026, 4, 2);
  const time = { window: "1h", from: "2026-05-01T00:00:00.000Z", to: "2026-05-02T00:00:00.000Z" };
  assert.deepEqual(seriesParams(choice, { kind: "all", value: "" }, at), time);
  assert.deepEqual(seriesParams(choice, { kind: "tag", value: "tea" }, at), { ...time, tag: "tea" });
  assert.equal(selectionName({ kind: "tag", value: "tea" }), "#tea");
  assert.equal(selectionName({ kind: "source", value: "reddit" }), "reddit (source)");
});

test("tags are named once", () => {
  assert.equal(decodeTags({}), null);
  const tags = decodeTags({ tags: [{ tag: "tea", posts: 3, mean_polarity: 0.2 }, { tag: "tea", posts: 1 }, { posts: 1 }, 7] });
  assert.deepEqual(tags, [{ tag: "tea", posts: 3, meanPolarity: 0.2 }]);
});
