import assert from "node:assert/strict";
import { test } from "node:test";
import { assignSlots, COLOURS, defaultSelection, fitRange, runs, smooth, spread, timeTicks } from "../src/lib/mood.ts";
import { bucketAt, dots, linePath, newest, y, type Frame } from "../src/lib/plot.ts";

const frame: Frame = { left: 10, top: 0, width: 100, height: 100, buckets: 4, range: 1 };

test("smoothing weighs by count and keeps gaps", () => {
  const series = { topic: "t", count: [1, 3, 0, 1], polarity: [1, 0, null, -1] };
  assert.deepEqual(smooth(series, 2), [1, 0.25, null, -1]);
  assert.deepEqual(smooth(series, 4), [1, 0.25, null, 0]);
  assert.deepEqual(smooth(series, 1), series.polarity);
});

test("a line is broken at gaps; a lone value becomes a dot", () => {
  const values = [null, 0, 0.5, null, -1];
  assert.deepEqual(runs(values), [[[1, 0], [2, 0.5]], [[4, -1]]]);
  assert.deepEqual(dots(values), [[4, -1]]);
  assert.equal(linePath(frame, [0, 1, null, -1]), "M22.5 50.0L47.5 0.0");
  assert.deepEqual(newest([0.2, null]), { index: 0, value: 0.2 });
  assert.equal(newest([null]), null);
});

test("positions: the upper edge is the range, the pointer always finds a bucket", () => {
  assert.equal(y({ ...frame, range: 0.25 }, 0.25), 0);
  assert.equal(y({ ...frame, range: 0.25 }, -1), 100);
  assert.deepEqual([-50, 10, 60, 109, 500].map((px) => bucketAt(frame, px)), [0, 0, 2, 3, 3]);
});

test("topics keep their colours while they overtake each other", () => {
  const first = assignSlots(new Map(), ["a", "b", "c"]);
  const second = assignSlots(first, ["c", "d", "a"]);
  assert.deepEqual([...second], [["c", 2], ["a", 0], ["d", 1]]);
  const many = assignSlots(new Map(), Array.from({ length: 20 }, (_, i) => `t${i}`));
  assert.ok([...many.values()].every((slot) => slot < COLOURS));
});

test("the default selection holds on to its topics and fills up by size", () => {
  const first = defaultSelection(new Set(), ["a", "b", "c", "d", "e", "f", "g"]);
  assert.deepEqual([...first], ["a", "b", "c", "d", "e", "f"]);
  assert.deepEqual([...defaultSelection(first, ["g", "f", "e", "d", "c", "b", "a"])].sort(), [...first].sort());
  assert.ok(defaultSelection(first, ["g", "a", "b", "c", "d", "e"]).has("g"));
});

test("the fitted range is symmetric and holds every value", () => {
  assert.equal(fitRange([[0.1, null], [-0.2]]), 0.25);
  assert.equal(fitRange([[-0.26]]), 0.5);
  assert.equal(fitRange([[0.9]]), 1);
  assert.equal(fitRange([]), 0.25);
});

test("labels are moved apart, keep their order and stay inside", () => {
  for (const wanted of [[50, 50, 50], [0, 1, 99], [98, 99, 100], [70, 20, 21]]) {
    const placed = spread(wanted, 15, 0, 100);
    const sorted = [...placed].sort((a, b) => a - b);
    for (let i = 1; i < sorted.length; i++) assert.ok(sorted[i]! - sorted[i - 1]! >= 15 - 1e-9, `${wanted}: ${placed}`);
    assert.ok(sorted[0]! >= 0 && sorted.at(-1)! <= 100, `${wanted}: ${placed}`);
  }
  assert.deepEqual(spread([80, 10], 15, 0, 100), [80, 10]);
});

test("ticks stand on round times", () => {
  const start = 1_800_000_000 + 240;
  const ticks = timeTicks(start, 60, 60, 7);
  assert.deepEqual(ticks.map((i) => (start + i * 60) % 600), [0, 0, 0, 0, 0, 0]);
});
