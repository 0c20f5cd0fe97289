import assert from "node:assert/strict";
import { test } from "node:test";
import { confirmWords, decodeReplayed, replayOf, replayWords } from "../src/lib/replay.ts";

test("events go by their stage, and posts by the store that refused them", () => {
  assert.deepEqual(replayOf("", true), { dry_run: true });
  assert.deepEqual(replayOf("parse", false), { stage: "parse", dry_run: false });
  assert.deepEqual(replayOf("opensearch", false), { sink: "opensearch", dry_run: false });
});

test("an answer of another version is none", () => {
  assert.deepEqual(decodeReplayed({ events: 3, refused: 1, dry_run: false }), { events: 3, refused: 1 });
  assert.deepEqual(decodeReplayed({ events: 3 }), { events: 3, refused: 0 });
  for (const body of [null, {}, [], { events: "3" }]) assert.equal(decodeReplayed(body), null);
});

test("what would be done is told from what was", () => {
  assert.equal(replayWords("parse", { events: 1200, refused: 0 }, false), "1,200 events would be scored again.");
  assert.equal(replayWords("", { events: 1, refused: 0 }, true), "1 event will be scored again.");
  assert.equal(replayWords("qdrant", { events: 2, refused: 1 }, true), "2 posts were written again. 1 post cannot be: the gateway's log says why.");
  assert.equal(replayWords("", { events: 0, refused: 0 }, false), "There is nothing to send again.");
  assert.equal(replayWords("", { events: 0, refused: 2 }, true), "There is nothing more to send again. 2 events cannot be: the gateway's log says why.");
  assert.equal(confirmWords("clickhouse", { events: 2, refused: 0 }), "Replay 2 posts");
});
