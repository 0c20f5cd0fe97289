import assert from "node:assert/strict";
import { test } from "node:test";
import { ago, duration, excerpt, iso, percent, polarity, rate, share, shortRevision, whole } from "../src/lib/format.ts";

test("numbers", () => {
  assert.deepEqual([0, 0.251, 3.14, 42.55, 99.94, 1250.4].map(rate), ["0", "0.25", "3.1", "42.5", "99.9", "1,250"]);
  assert.deepEqual([0.314, -0.07, 0.004, -0.004, 1].map(polarity), ["+0.31", "−0.07", "0.00", "0.00", "+1.00"]);
  assert.deepEqual([0, 0.0004, 0.5, 0.9996, 1].map(percent), ["0%", "<0.1%", "50.0%", ">99.9%", "100%"]);
  assert.equal(whole(1_234_567), "1,234,567");
  assert.equal(share(1, 0), "0%");
  assert.equal(shortRevision("sha256:9f2c41d07be86a55"), "9f2c41d07be8");
});

test("durations", () => {
  const cases: [number | null, string][] = [[null, "–"], [0, "0 s"], [0.42, "0.4 s"], [9.97, "10 s"], [59.6, "1 min"], [185, "3 min 5 s"], [7800, "2 h 10 min"], [349_200, "4 d 1 h"], [-3, "0 s"]];
  for (const [seconds, words] of cases) assert.equal(duration(seconds), words);
});

test("ages, on wild clocks too", () => {
  const now = Date.UTC(2026, 4, 2);
  const cases: [number | null, string][] = [
    [now - 700, "now"], [now - 12_000, "12 s ago"], [now - 3 * 3_600_000, "3 h ago"], [now + 7_300_000, "in 2 h"],
    [0, "1970-01-01"], [null, "no time"], [1e300, "no time"],
  ];
  for (const [ms, words] of cases) assert.equal(ago(ms, now), words);
  assert.equal(iso(-1e17), null);
});

test("an excerpt never splits an emoji, and never outgrows its limit", () => {
  const family = "👨‍👩‍👧‍👦";
  assert.deepEqual(excerpt("short", 10), { text: "short", cut: false });
  assert.deepEqual(excerpt(`ab${family}cd`, 6), { text: "ab", cut: true });
  assert.deepEqual(excerpt(`ab${family}cd`, 2 + family.length), { text: `ab${family}`, cut: true });
  const stacked = `e${"\u0301".repeat(500)}`;
  assert.equal(excerpt(stacked, 20).text.length, 20);
});
