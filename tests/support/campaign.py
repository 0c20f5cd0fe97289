"""Killing without end: processes of every role, the servers that they stand on, and what these answer; and the oracle after
each.

A `World` is three topics, six tables and the members that work on them, each role in a process of its own, over a real
broker, Apache's REST catalog and MinIO. A `Campaign` plays rounds in it: posts come in, somebody is killed, the ledger
(support/ledger.py) checks what there is at that moment, and the dead come back. After some rounds the world is brought to
its end, everything is compared from scratch, and the next one begins. One seed and the number of the world decide
everything that is random, except what the machine's own timing adds.

The first violation ends the campaign with an error. What was done so far is in `tally`, after every round.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NoSuchTableError
from servers.iceberg_rest import IcebergRest
from servers.kafka import Kafka
from servers.minio import MinIO
from servers.process import Died as ServerDied
from servers.process import Server

from . import foreign
from .catalog import PYARROW, clear
from .kafka_wire import REQUESTS, KafkaWire
from .ledger import Ledger
from .posts import generate, line, now, post, with_malformed
from .process import Died, Running, free_ports
from .tables import TABLES
from .topics import Topics, violations

# A dead member is missed after a second instead of 45.
CONFIG = """
[kafka.client]
"session.timeout.ms" = 1500
"heartbeat.interval.ms" = 300
"""

SCORE_POINTS = ("start.before-pin", "start.after-pin", "score.ready", "score.begun", "score.producing", "score.produced")
SCORE_POINTS += ("score.flushed", "score.offsets-sent", "score.committed")
ATTEMPTS_POINTS = tuple(f"attempts.{step}" for step in ("ready", "begun", "produced", "flushed", "offsets-sent", "committed"))
SCORE_POINTS += ATTEMPTS_POINTS
TABLE_POINTS = ("sink.rows-written", "sink.files-closed", "catalog.before-commit", "catalog.after-commit", "sink.committed")
# The start is written down once in the life of a group, where no other member was before, and attempts are counted when scoring begins.
FIRST_POINTS = ("start.before-pin", "start.after-pin", *ATTEMPTS_POINTS)

# Of forty-three rounds.
KINDS = ("process",) * 34 + ("broker",) * 3 + ("catalog", "catalog", "store") + ("lost answer",) * 3
# Answers of the broker that are lost, and for how many seconds it then cannot be reached: a step of a transaction waits eight.
ANSWERS = ("Produce", "Produce", "AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn", "Fetch", "OffsetFetch")
SILENCES = (0.1, 1, 3, 9.5)
# So many events may wait before a round adds no more.
BACKLOG = 1200
POINT_SECONDS = 4
# How long a victim may take to begin.
WORK_SECONDS = 10
END_SECONDS = 120


class Broken(AssertionError):
    """The promise is broken, or a process ended that had no reason to."""


class Member:
    """A process with some roles, dead or alive."""

    def __init__(self, world: World, name: str, roles: str, instance: bool) -> None:
        self.world, self.name, self.roles = world, name, roles
        self.instance = {"UNDERTONE_KAFKA__INSTANCE": name} if instance else {}
        self.label = roles.replace(",", "+")
        # What is written to the one arms fail points, also in a process that runs; the other says that one was reached.
        self.points, self.marker = world.folder / f"{name}.points", world.folder / f"{name}.reached"
        self.running: Running | None = None
        self.began = 0.0

    def start(self, **env: str) -> Member:
        assert not self.alive()
        chance = self.world.chance
        often = {
            "UNDERTONE_SINKS__COMMIT_INTERVAL": f"{chance.choice((200, 400, 800, 1500))}ms",
            "UNDERTONE_SINKS__COMMIT_ROWS": str(chance.choice((60, 200, 1000))),
        }
        points = {"UNDERTONE_FAILPOINTS_FILE": str(self.points), "UNDERTONE_FAILPOINT_MARKER": str(self.marker)}
        settings = self.world.topics.settings(**often, **points, **self.instance, **env) | self.world.env
        self.began = time.monotonic()
        self.running = Running("--config", self.world.config, "--roles", self.roles, cwd=self.world.folder, env=settings)
        return self

    def alive(self) -> bool:
        return self.running is not None and self.running.alive()

    def kill(self) -> None:
        """SIGKILL, now; what it printed is forgotten."""
        if self.running is not None:
            self.running.kill()
            for path in (self.running.log_path, self.points, self.marker):
                path.unlink(missing_ok=True)
            self.running = None


class Servers:
    """A broker, a store and a catalog, which are here to be killed."""

    def __init__(self, folder: Path) -> None:
        self.kafka, self.minio = Kafka(folder / "kafka"), MinIO(folder / "minio")
        self.wire = KafkaWire(self.kafka)
        self.rest = IcebergRest(folder / "catalog", self.minio)
        self.all: dict[str, Server] = {"broker": self.kafka, "store": self.minio, "catalog": self.rest}
        self.outages: list[tuple[float, float]] = []

    def __enter__(self) -> Servers:
        for server in self.all.values():
            server.launch()
        try:
            for server in self.all.values():
                server.await_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.all.values():
            server.kill()
        self.wire.__exit__()

    def lose_answer(self, name: str, seconds: float) -> bool:
        """Loses the next answer of the broker to such a request, and cuts it off for a while; false if nobody asks."""
        began = time.monotonic()
        self.wire.lose(REQUESTS[name], seconds)
        lost = self.wire.lost.wait(POINT_SECONDS)
        self.wire.mend()
        time.sleep(max(0.0, self.wire.closed_until - time.monotonic()))
        self.outages.append((began, time.monotonic()))
        return lost

    def outage(self, name: str, seconds: float) -> None:
        began = time.monotonic()
        self.all[name].kill()
        time.sleep(seconds)
        for left in reversed(range(3)):
            try:
                self.all[name].start()
                break
            except ServerDied:  # not in time, which on a busy machine is not its fault
                if not left:
                    raise
        self.outages.append((began, time.monotonic()))

    def were_away(self, since: float, until: float) -> bool:
        return any(began <= until and since <= ended for began, ended in self.outages)

    def catalog(self) -> Catalog:
        return load_catalog("rest", **self.rest.properties(), **PYARROW)


class World:
    """Topics, tables, and whoever works on them."""

    def __init__(self, servers: Servers, folder: Path, seed: str) -> None:
        folder.mkdir(parents=True)
        self.servers, self.folder, self.chance = servers, folder, random.Random(seed)
        self.topics = Topics(servers.kafka.brokers, partitions=self.chance.choice((2, 3, 4)))
        self.catalog = servers.catalog()
        self.config = folder / "u.toml"
        self.config.write_text(servers.rest.toml() + servers.minio.toml() + CONFIG)
        # A proxy of the machine has nothing to do with 127.0.0.1.
        self.env = servers.minio.keys() | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        self.ledger = Ledger(self.topics, self.catalog)
        self.posts = generate(1500, seed=self.chance.randrange(1 << 30), cwd=folder)
        self.at = 0
        scorers = self.chance.choice((1, 1, 2))
        names = [("score", f"score-{n}") for n in range(scorers)]
        names += self.chance.choice(
            (
                [("bronze", "bronze"), ("silver", "silver"), ("gold", "gold")],
                [("bronze", "bronze"), ("silver,gold", "silver-gold")],
                [("bronze,silver", "bronze-silver"), ("gold", "gold"), ("silver", "silver")],
            )
        )
        # Scorers have names, under which they end what the broker may forget to (stream/src/kafka/producer.rs).
        named = lambda roles: "score" in roles or self.chance.random() < 0.5  # noqa: E731
        self.members = [Member(self, name, roles, named(roles)) for roles, name in names]

    # ---------------------------------------------------------------------------------------------------------- input

    def produce(self, count: int) -> int:
        """Posts, and among them what no parser takes, wild clocks, and now and then one that is too large."""
        some = [self.posts[(self.at + n) % len(self.posts)] for n in range(count)]
        self.at += count
        some = with_malformed(some, every=25, seed=self.chance.randrange(1 << 30))
        some += [self.changed(each) for each in self.chance.sample(some, min(4, len(some)))]
        if self.chance.random() < 0.3:
            some.append(line(post(self.at, created_at=self.chance.choice(("1970-01-02T00:00:00Z", "2242-03-16T00:00:00Z")))))
        if self.chance.random() < 0.1:
            some.append(line(post(self.at, text="so large " * self.chance.choice((16_000, 100_000)))))
        if self.chance.random() < 0.1:
            some.append(b"not JSON, and large " * 45_000)
        self.chance.shuffle(some)
        self.topics.produce(some)
        return len(some)

    def changed(self, payload: bytes) -> bytes:
        """An edit of a post, or its tombstone; the payload itself if it is no post."""
        try:
            fields = json.loads(payload)
            created = {name: fields[name] for name in ("id", "source", "created_at")}
        except (ValueError, KeyError, TypeError):
            return payload
        if self.chance.random() < 0.5:
            return line(created | {"deleted": True, "edited_at": now()})
        return line(created | {"text": "on second thoughts, this is wonderful", "edited_at": now()})

    def waiting(self) -> int:
        return len(self.topics.events) - len(self.ledger.scored) - len(self.ledger.dead)

    # -------------------------------------------------------------------------------------------------- somebody else

    def disturb(self) -> str:
        """What a foreign writer does: rows of its own come or go, or snapshots expire that nobody reads any more."""
        name = self.chance.choice(("bronze.posts", "silver.posts"))
        what = self.chance.choice(("append", "append", "delete", "expire"))
        unread = lambda table: {each.snapshot_id for each in table.snapshots()} - self.ledger.tables[name].snapshots  # noqa: E731
        works = {"append": foreign.append, "delete": foreign.delete, "expire": lambda table: foreign.expire(table, keep=unread(table))}
        try:
            foreign.patiently(self.catalog, name, works[what])
        except NoSuchTableError:
            return "foreign nothing"  # the world is so young that the table is not made yet
        return f"foreign {what}"

    # ---------------------------------------------------------------------------------------------------------- the end

    def finish(self) -> list[str]:
        """Everybody ends in order, what is left is scored and stored, and everything is compared from scratch."""
        found = []
        for member in self.members:
            if member.alive():
                member.running.process.send_signal(signal.SIGTERM)
        for member in self.members:
            if member.running is not None:
                status = member.running.wait(END_SECONDS)
                # One that was started a moment ago has not yet learned to end in order.
                if status not in (0, -signal.SIGTERM) and not self.servers.were_away(member.began, time.monotonic()):
                    found.append(f"{member.name} ended with status {status}:\n{member.running.log()[-3000:]}")
                member.kill()
        # Under its own name each scorer ends what it may have left open.
        for member in self.members:
            if "score" in member.roles:
                found += self.once("score", **member.instance)
        found += self.once("bronze,silver,gold")
        return found or self.ledger.check() + violations(self.topics, self.catalog)

    def once(self, roles: str, **env: str) -> list[str]:
        """Everything that the topics hold, by one process; what is wrong if that does not come to its end."""
        (port,) = free_ports(1)
        env |= self.topics.settings() | self.env | {"UNDERTONE_RUN__METRICS": f"127.0.0.1:{port}"}
        with Running("--once", "--config", self.config, "--roles", roles, cwd=self.folder, env=env) as running:
            try:
                status = running.process.wait(300)
            except subprocess.TimeoutExpired:
                ready = running.session.get(f"http://127.0.0.1:{port}/readyz", timeout=10).text
                stands = f"it says {ready}\ntransactions are open in partitions {self.ledger.hidden()}"
                return [f"it does not come to its end: {stands}\n{running.log()[-6000:]}"]
            return [] if status == 0 else [f"it cannot be finished:\n{running.log()[-3000:]}"]

    def close(self) -> None:
        """Kills everybody, and removes what it made."""
        for member in self.members:
            member.kill()
        self.ledger.close()
        try:
            clear(self.catalog)
            for name in (self.topics.raw, self.topics.scored, self.topics.dead):
                self.topics.delete(name)
        except Exception as error:  # a server may be what has ended the campaign
            print(f"what the world made stays: {error}")


class Campaign:
    """Rounds of kills."""

    def __init__(self, servers: Servers, folder: Path, seed: int, world: int = 0, rounds_a_world: int = 40) -> None:
        self.servers, self.folder, self.seed, self.number = servers, folder, seed, world
        self.rounds_a_world = rounds_a_world
        self.world: World | None = None
        self.kinds: list[str] = []
        self.tally: Counter[str] = Counter()
        self.after_round: Callable[[], None] = lambda: None

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *_: object) -> None:
        if self.world is not None:
            self.world.close()

    def begin(self) -> World:
        """A new world, in which everybody has been started."""
        assert self.world is None
        name = f"{self.seed}-{self.number}"
        self.world = World(self.servers, self.folder / f"world-{name}", name)
        self.world.produce(self.world.chance.randint(50, 200))
        # Scoring first: the first to come says where the stream begins.
        for member in self.world.members:
            member.start()
        return self.world

    def play(self, rounds: int) -> None:
        """Plays so many rounds, and ends the world in use."""
        for number in range(rounds):
            if number and number % self.rounds_a_world == 0:
                self.end()
            world = self.world or self.begin()
            if not self.kinds:
                self.kinds = list(KINDS)
                world.chance.shuffle(self.kinds)
            self.round(world, self.kinds.pop())
        self.end()

    def end(self) -> None:
        if self.world is None:
            return
        self.demand(self.world.finish(), "at the end of the world")
        self.tally["worlds"] += 1
        self.tally["posts"] += len(self.world.topics.events)
        for what, count in self.world.ledger.checks.items():
            self.tally[f"checked: {what}"] += count
        self.world.close()
        self.world = None
        self.number += 1

    def round(self, world: World, kind: str) -> None:
        """One: posts, a kill, the oracle, and the dead come back."""
        began, chance = time.monotonic(), world.chance
        self.revive(world)
        if world.waiting() < BACKLOG:
            world.produce(chance.randint(20, 250))
        works = {"process": self.kill_processes, "lost answer": self.lose_answer}
        did = works[kind](world) if kind in works else self.kill_server(world, kind)
        if chance.random() < 0.15:
            what = world.disturb()
            did.append(what)
            self.tally[what] += 1
        self.check(world, did)
        for each in did:
            self.tally[each] += 1
        self.tally["rounds"] += 1
        self.tally[f"rounds on a {kind}"] += 1
        self.tally["seconds"] += round(time.monotonic() - began)
        waiting = world.waiting()
        took = time.monotonic() - began
        print(f"round {self.tally['rounds']} (world {self.number}): {', '.join(did)}; {waiting} wait; {took:.1f} s", flush=True)
        self.after_round()

    def check(self, world: World, did: Sequence[str]) -> None:
        self.demand(world.ledger.check(), ", ".join(did))

    def demand(self, found: list[str], when: str) -> None:
        if found:
            where = f"seed {self.seed}, world {self.number}, round {self.tally['rounds'] + 1}, {when}"
            logs = [f"--- {member.name}\n{member.running.log()[-2000:]}" for member in self.world.members if member.running]
            raise Broken(f"the promise is broken: {where}:\n  " + "\n  ".join(found) + "\n" + "\n".join(logs))

    # ---------------------------------------------------------------------------------------------------------- kills

    def kill_processes(self, world: World) -> list[str]:
        chance = world.chance
        members = list(world.members)
        how = chance.choices(("one", "point", "several", "all", "sleep"), (40, 35, 10, 5, 10))[0]
        if how == "point":
            return [self.kill_at_point(world, chance.choice(members))]
        time.sleep(chance.uniform(0.1, 2.0))
        if how == "sleep":
            # Longer than the session: it wakes when its partitions have another owner, if there is one.
            sleeper = chance.choice(members)
            sleeper.running.process.send_signal(signal.SIGSTOP)
            time.sleep(chance.uniform(1.6, 3))
            sleeper.running.process.send_signal(signal.SIGCONT)
            time.sleep(chance.uniform(0, 0.5))
            victim = chance.choice(members)
            self.kill(victim)
            return [f"slept: {sleeper.label}", f"killed: {victim.label}"]
        count = {"one": 1, "several": chance.randint(2, max(2, len(members) - 1)), "all": len(members)}[how]
        victims = chance.sample(members, count)
        if chance.random() < 0.5:
            self.await_work(victims[0])
        for victim in victims:
            self.kill(victim)
        return [f"killed: {victim.label}" for victim in victims]

    def await_work(self, victim: Member) -> None:
        """On a busy machine most moments would otherwise be before the victim has begun."""
        deadline = time.monotonic() + WORK_SECONDS
        while victim.alive() and "sink goes on" not in victim.running.log() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(self.world.chance.uniform(0, 1))

    def kill(self, victim: Member) -> None:
        if not victim.alive():
            self.excuse(victim)
        victim.kill()

    def kill_at_point(self, world: World, victim: Member) -> str:
        """The victim dies at a certain step; at any moment if that step does not come."""
        points = [point for point in points_of(victim.roles) if point not in FIRST_POINTS]
        point = world.chance.choice(points)
        visit = world.chance.randint(1, 200) if point == "score.producing" else world.chance.randint(1, 2)
        victim.points.write_text(f"{point}=stall@{visit}")
        deadline = time.monotonic() + POINT_SECONDS
        while not victim.marker.exists() and time.monotonic() < deadline and victim.alive():
            # More to do: a later visit would not come otherwise.
            if world.waiting() < 2 * BACKLOG:
                world.produce(15)
            time.sleep(0.2)
        stalled = victim.marker.exists()
        self.kill(victim)
        return f"killed at {point}" if stalled else f"killed before {point}"

    def kill_server(self, world: World, kind: str) -> list[str]:
        chance = world.chance
        time.sleep(chance.uniform(0.1, 1.0))
        did = [f"killed: {kind}"]
        if chance.random() < 0.3:
            victim = chance.choice(world.members)
            self.kill(victim)
            did.append(f"killed: {victim.label}")
        self.servers.outage(kind, chance.uniform(0, 2))
        return did

    def lose_answer(self, world: World) -> list[str]:
        name, seconds = world.chance.choice(ANSWERS), world.chance.choice(SILENCES)
        self.await_work(world.members[0])
        world.produce(100)
        lost = self.servers.lose_answer(name, seconds)
        return [f"lost an answer: {name}" if lost else f"nobody asked: {name}"]

    def revive(self, world: World) -> None:
        """Starts the dead. Nobody may have died by himself, but who was started while a server was away."""
        for member in world.members:
            if not member.alive():
                self.excuse(member)
                member.kill()
                member.start()

    def excuse(self, member: Member) -> None:
        if member.running is None or member.alive():
            return
        if member.running.process.returncode == 2 and self.servers.were_away(member.began, time.monotonic()):
            self.tally["ended by itself while a server was away"] += 1
            return
        # Who finds no broker when he starts ends; one that gets no time to run puts itself out of its cluster for a while.
        log = member.running.log()
        if member.running.process.returncode == 2 and "is the broker up" in log and "sink goes on" not in log:
            self.tally["ended at its start because the broker was not ready"] += 1
            return
        raise Broken(f"{member.name} ended by itself with status {member.running.process.returncode}:\n{member.running.log()[-6000:]}")


def points_of(roles: str) -> tuple[str, ...]:
    return SCORE_POINTS if roles == "score" else TABLE_POINTS
