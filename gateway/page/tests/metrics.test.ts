import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeHealth, reasonWords, replayCommands, samples } from "../src/lib/metrics.ts";

const TEXT = `# HELP undertone_stream_dead_total events
# TYPE undertone_stream_dead_total counter
undertone_stream_dead_total{stage="parse",reason="no_text"} 5
undertone_stream_dead_total{stage="parse",reason="not_json"} 7
undertone_sink_commits_total{sink="silver.posts",outcome="committed"} 4
undertone_sink_commits_total{sink="silver.posts",outcome="failed"} 1
undertone_sink_waiting{sink="silver.posts"} 1
undertone_sink_stopped{sink="silver.posts"} 0
undertone_sink_stopped{sink="qdrant"} 1
undertone_sink_freshness_seconds_sum{sink="silver.posts"} 6
undertone_sink_freshness_seconds_count{sink="silver.posts"} 4
undertone_sink_freshness_seconds_bucket{sink="silver.posts",le="+Inf"} 4
garbage {{{
`;

test("health is read of the metrics, and nothing else of them", () => {
  const health = decodeHealth(TEXT);
  assert.deepEqual(health?.reasons, [
    { stage: "parse", reason: "not_json", count: 7 },
    { stage: "parse", reason: "no_text", count: 5 },
  ]);
  assert.deepEqual(health?.sinks, [
    { sink: "qdrant", committed: 0, failed: 0, freshness: null, waiting: false, stopped: true },
    { sink: "silver.posts", committed: 4, failed: 1, freshness: 1.5, waiting: true, stopped: false },
  ]);
  assert.equal(decodeHealth(null), null);
  assert.deepEqual(decodeHealth(""), { reasons: [], sinks: [] });
});

test("labels are unescaped, and what is no number is passed over", () => {
  assert.deepEqual(samples('a{x="q\\"\\\\\\n}"} 1\nb 2\na NaN', (name) => name === "a"), [{ name: "a", labels: { x: 'q"\\\n}' }, value: 1 }]);
});

test("a replay is tried before it is done, and stores have their own", () => {
  assert.deepEqual(replayCommands("qdrant").slice(1), ["undertone dead replay --sink qdrant --dry-run", "undertone dead replay --sink qdrant"]);
  assert.deepEqual(replayCommands("parse")[2], "undertone dead replay --stage parse");
  assert.ok(replayCommands("")[1]?.endsWith("--dry-run"));
  assert.equal(reasonWords("not_json"), "not JSON");
  assert.equal(reasonWords("a_new_one"), "a new one");
});
