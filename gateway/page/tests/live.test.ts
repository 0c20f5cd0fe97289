import assert from "node:assert/strict";
import { test } from "node:test";
import { LiveFeed, STALE_MS, type Connection, type Ports } from "../src/lib/live.ts";

/** A clock that the test moves, a stream that it breaks, and a poll that it answers. */
function bench() {
  let now = 1_000_000;
  let tick = () => {};
  let stream: { onData: (data: string) => void; onFail: () => void } | null = null;
  const state = { opened: 0, closed: 0, polled: 0, overviews: 0, answers: false, last: null as Connection | null };
  const ports: Ports = {
    now: () => now,
    open(onData, onFail) {
      state.opened++;
      stream = { onData, onFail };
      return { close: () => void state.closed++ };
    },
    async fetch() {
      state.polled++;
      if (!state.answers) throw new Error("down");
      return { now_ms: now };
    },
    every(_ms, run) {
      tick = run;
      return () => (tick = () => {});
    },
  };
  const feed = new LiveFeed(ports, () => state.overviews++, (connection) => (state.last = connection));
  return {
    state,
    feed,
    at: () => now,
    event: (data = JSON.stringify({ now_ms: now })) => stream!.onData(data),
    fail: () => stream!.onFail(),
    /** Lets time pass in ticks of half a second, with the promises in between settled. */
    async pass(ms: number) {
      for (const end = now + ms; now < end; ) {
        now += 500;
        tick();
        await new Promise((done) => setImmediate(done));
      }
    },
  };
}

test("connecting, then live with the first event", () => {
  const { feed, state, event } = bench();
  feed.start();
  assert.deepEqual(state.last, { kind: "connecting" });
  event();
  assert.deepEqual(state.last, { kind: "live" });
  assert.equal(state.overviews, 1);
});

test("a broken stream is lost since its last event, is polled for, and comes back", async () => {
  const b = bench();
  b.feed.start();
  b.event();
  const last = b.at();
  b.fail();
  await b.pass(STALE_MS);
  assert.deepEqual(b.state.last, { kind: "lost", sinceMs: last });
  assert.ok(b.state.polled >= 1);
  b.state.answers = true;
  await b.pass(4000);
  assert.deepEqual(b.state.last, { kind: "polling" });
  assert.ok(b.state.opened >= 2, "the stream is tried again");
  b.event();
  assert.deepEqual(b.state.last, { kind: "live" });
  const polled = b.state.polled;
  b.event();
  await b.pass(3000);
  assert.equal(b.state.polled, polled, "a live stream is not polled beside");
});

test("a stream that is open but silent counts as lost", async () => {
  const b = bench();
  b.feed.start();
  b.event();
  await b.pass(STALE_MS + 500);
  assert.equal(b.state.last?.kind, "lost");
  assert.equal(b.state.closed, 1);
});

test("garbled events neither throw nor count as fresh", async () => {
  const b = bench();
  b.feed.start();
  b.event("{");
  b.event("[]");
  assert.equal(b.state.overviews, 0);
  await b.pass(STALE_MS + 500);
  assert.equal(b.state.last?.kind, "lost");
});

test("after stop nothing arrives and nothing is opened", async () => {
  const b = bench();
  b.feed.start();
  b.feed.stop();
  b.event();
  b.fail();
  await b.pass(20_000);
  assert.deepEqual([b.state.overviews, b.state.opened, b.state.polled], [0, 1, 0]);
});
