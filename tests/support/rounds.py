"""Rounds of trouble for the three stores of the latest, and the oracle after them.

Each round appends posts, edits, deletions and posts that cannot be taken, in no order, and lets something go wrong while
the sinks work on them: processes are killed at a fail point or anywhere, stores are killed, paused, or cut off in the middle
of an answer, bulk requests fail in part, answers are lost after the write has happened, storms of 429 and 503 pass, members
of a group come and go. `look` lets the sinks finish, and asks whether every store holds what it must.
"""

from __future__ import annotations

import gzip
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

from servers.process import Server

from .latest import SINKS, THREE, World, append, begun, scored, tombstone, violations
from .proxy import Answer, Proxy, Request, Spoil
from .wire import Wire

POINTS = ("latest.stored", "latest.settled", "settle.ready", "settle.begun", "settle.produced", "settle.flushed", "settle.offsets-sent", "settle.committed")
# Few, so that versions of the same post meet.
NUMBERS, VERSIONS = 400, 50


class Broken(AssertionError):
    """A store does not hold what it must."""


class Rounds:
    """Rounds in one world, whose sinks reach their stores through things that spoil."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.stores, self.seed = world, world.stores, seed
        self.chance = random.Random(seed)
        self.documents, self.rows = Proxy(self.stores.opensearch.url), Proxy(self.stores.clickhouse.url)
        self.points = Wire(self.stores.qdrant.url)
        self.counts: Counter[str] = Counter()
        self.restarts = 0
        # Drawn from until it is empty, so that few rounds are of every kind.
        self.deck: list[Callable[[], str]] = []

    def __enter__(self) -> Rounds:
        for each in (self.documents, self.rows, self.points):
            each.__enter__()
        self.stores.write_config(opensearch=self.documents.uri, clickhouse=self.rows.uri, qdrant=self.points.url)
        append(self.world.topics, self.posts(100))
        self.world.run_once()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.documents, self.rows, self.points):
            each.__exit__()

    def posts(self, count: int) -> list:
        """Versions of few posts. What cannot be taken depends on the version alone, so that equal versions are equal posts."""
        some = []
        for _ in range(count):
            number, version = self.chance.randrange(NUMBERS), self.chance.randrange(1, VERSIONS)
            kind = random.Random(number * 1000 + version).random()
            if kind < 0.1:
                some.append(tombstone(number, version))
            else:
                some.append(scored(number, version, **({"polarity": float("nan")} if kind < 0.105 else {})))
        self.counts["posts"] += count
        return some

    def play(self, restarts: int) -> None:
        """One round; OpenSearch, which takes half a minute to start, is killed at most `restarts` times in all."""
        if not self.deck:
            self.deck = [self.kill_at_a_point, self.kill_at_a_point, self.kill_at_a_point, self.kill_anywhere, self.members_come_and_go]
            self.deck += [self.kill_a_store, self.pause_a_store, self.cut_the_wire, self.fail_in_part, self.lose_answers, self.storm]
            if self.restarts < restarts:
                self.deck.append(self.kill_opensearch)
            self.chance.shuffle(self.deck)
        append(self.world.topics, self.posts(self.chance.randint(100, 600)))
        self.counts["rounds"] += 1
        self.counts[self.deck.pop()()] += 1

    def look(self) -> None:
        """Lets the sinks finish, and asks the oracle."""
        self.calm()
        self.world.run_once()
        if found := violations(self.world.topics, self.stores):
            said = "\n  ".join(self.world.log.splitlines()[-60:])
            print(f"the last run said:\n  {said}", flush=True)
            raise Broken(f"the promise is broken (seed {self.seed}, {dict(self.counts)}):\n  " + "\n  ".join(found))
        self.counts["looks at all three stores"] += 1

    def calm(self) -> None:
        for proxy in (self.documents, self.rows):
            with proxy.lock:
                for plans in (proxy.losses, proxy.repeats, proxy.spoils, proxy.replaced):
                    plans.clear()
        self.points.flows.set()
        self.points.delay = 0.0
        with self.points.lock:
            self.points.halves.clear()

    def report(self) -> dict[str, int]:
        self.counts["answers lost or spoiled"] = len(self.documents.lost()) + len(self.rows.lost())
        self.counts["connections cut"] = self.points.cuts
        return dict(sorted(self.counts.items()))

    # What can go wrong. Each answers what it did.

    def kill_at_a_point(self) -> str:
        point, visit, marker = self.chance.choice(POINTS), self.chance.randint(1, 5), self.world.folder / "stalled"
        marker.unlink(missing_ok=True)
        with self.world.start(THREE, UNDERTONE_FAILPOINTS=f"{point}=stall@{visit}", UNDERTONE_FAILPOINT_MARKER=str(marker)) as running:
            until = time.monotonic() + 30
            # On a busy machine it may come to be that often only later; then it is killed before that.
            while not marker.exists() and time.monotonic() < until:
                # Sinks that are level visit no point.
                append(self.world.topics, self.posts(20))
                time.sleep(0.3)
        return f"killed {'at' if marker.exists() else 'before'} {point}"

    def kill_anywhere(self) -> str:
        with self.world.start(THREE) as running:
            begun(running)
            time.sleep(self.chance.uniform(0, 2))
        return "killed anywhere"

    def members_come_and_go(self) -> str:
        sink = self.chance.choice(SINKS)
        with self.world.start(sink) as first:
            begun(first)
            # It sleeps while its partitions go to another, and wakes as one that has nothing to say any more.
            first.process.send_signal(signal.SIGSTOP)
            with self.world.start(sink, UNDERTONE_KAFKA__INSTANCE="another") as second:
                begun(second)
                append(self.world.topics, self.posts(200))
                time.sleep(self.chance.uniform(1, 3))
                first.process.send_signal(signal.SIGCONT)
                append(self.world.topics, self.posts(200))
                time.sleep(self.chance.uniform(0, 2))
        return "an owner slept while another worked"

    def kill_a_store(self) -> str:
        return self.without(self.chance.choice([self.stores.clickhouse, self.stores.qdrant]))

    def kill_opensearch(self) -> str:
        self.restarts += 1
        return self.without(self.stores.opensearch)

    def without(self, store: Server) -> str:
        with self.world.start(THREE) as running:
            begun(running)
            time.sleep(self.chance.uniform(0, 1))
            store.kill()
            append(self.world.topics, self.posts(200))
            time.sleep(self.chance.uniform(0, 2))
            store.start()
            time.sleep(self.chance.uniform(0, 2))
        return f"{store.name} killed"

    def pause_a_store(self) -> str:
        store = getattr(self.stores, self.chance.choice(SINKS))
        with self.world.start(THREE) as running:
            begun(running)
            store.pause()
            try:
                append(self.world.topics, self.posts(200))
                time.sleep(self.chance.uniform(1, 3))
            finally:
                store.resume()
            time.sleep(self.chance.uniform(0, 1))
        return f"{store.name} paused"

    def cut_the_wire(self) -> str:
        with self.world.start(THREE) as running:
            begun(running)
            for _ in range(3):
                append(self.world.topics, self.posts(100))
                self.chance.choice([self.points.cut, lambda: self.points.halve(self.chance.randrange(1, 200)), self.hold])()
                time.sleep(self.chance.uniform(0, 1))
            self.calm()
        return "the wire to qdrant cut or held"

    def hold(self) -> None:
        self.points.flows.clear()
        time.sleep(self.chance.uniform(0, 1))
        self.points.flows.set()

    def fail_in_part(self) -> str:
        self.documents.replace(is_write, self.partly, times=3)
        return self.work_on("bulk requests failed in part")

    def partly(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Some documents are written, and the others put off or (one of them) forgotten by a server that is shutting down."""
        lines = gzip.decompress(request.body).splitlines()
        pairs = list(zip(lines[::2], lines[1::2], strict=True))
        taken = [self.chance.random() < 0.6 for _ in pairs]
        kept = b"".join(b"%s\n%s\n" % pair for pair, take in zip(pairs, taken, strict=True) if take)
        items = []
        if kept:
            some = Request(request.method, request.path, request.headers, gzip.compress(kept))
            status, headers, content = forward(some)
            if status != 200:
                return status, headers, content
            items = json.loads(content)["items"]
        late = {"index": {"status": 429, "error": {"type": "rejected_execution_exception", "reason": "queue is full"}}}
        body = {"items": [items.pop(0) if take else late for take in taken]}
        return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()

    def lose_answers(self) -> str:
        for proxy in (self.documents, self.rows):
            proxy.lose(is_write, times=2)
            proxy.repeat(is_write, times=1)
            proxy.spoil(is_write, Spoil(forwarded=True, seconds=self.chance.uniform(0, 2)))
        return self.work_on("answers lost after the write")

    def storm(self) -> str:
        for proxy in (self.documents, self.rows):
            for status in (429, 503, 502):
                proxy.spoil(is_write, Spoil(forwarded=self.chance.random() < 0.5, status=status), times=2)
        return self.work_on("storm of 429, 502 and 503")

    def work_on(self, what: str) -> str:
        with self.world.start(THREE) as running:
            begun(running)
            append(self.world.topics, self.posts(200))
            time.sleep(self.chance.uniform(1, 4))
        return what


def is_write(request: Request) -> bool:
    return request.method == "POST" and (request.path.startswith("/_bulk") or "insert" in request.path.lower())
