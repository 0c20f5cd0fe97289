"""The kill test on a real broker with the tables in a data folder: all roles in one process die at every step, the broker dies,
owners sleep; then the oracle counts. With a catalog and a store that are servers, and a process for each role, it is
test_crash_rounds.py.

A world is a set of topics and a data folder. Each round starts `undertone run`, waits for a moment (a fail point, or a random
one), and kills. At the end everything is finished with `--once`, and topics and tables must be whole. The seed is printed;
UNDERTONE_CRASH_SEED repeats a run, UNDERTONE_KAFKA_ROUNDS makes it longer.

The last tests switch a safeguard off, and demand that the oracle notices.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from servers.kafka import Kafka
from support.posts import generate, with_malformed
from support.process import START_SECONDS, Running, free_ports, undertone
from support.topics import Topics, assert_promise, violations

SEED = int(os.environ.get("UNDERTONE_CRASH_SEED") or time.time_ns() % 1_000_000)
ROUNDS = int(os.environ.get("UNDERTONE_KAFKA_ROUNDS", "3"))

# A dead member is missed after a second instead of 45; commits come often, so that a kill has something to hit.
CONFIG = """
[kafka.client]
"session.timeout.ms" = 1500
"heartbeat.interval.ms" = 300
[sinks]
commit_interval = "300ms"
commit_rows = 200
"""
POINTS = ["score.flushed", "score.offsets-sent", "sink.rows-written", "sink.files-closed", "catalog.before-commit"]
POINTS += ["catalog.after-commit", "sink.committed"]
# Under the same name a process ends what the last one left open, and need not wait until the broker does.
NAMED = {"UNDERTONE_KAFKA__INSTANCE": "the-only-one"}
# Every table commits once where its partitions begin, and once at the end.
AT_THE_END = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "10m", "UNDERTONE_SINKS__COMMIT_ROWS": "1000000"}


class World:
    """Topics, a data folder, and whoever works on them."""

    def __init__(self, kafka: Kafka, folder: Path, partitions: int = 3) -> None:
        self.kafka, self.folder, self.data = kafka, folder, folder / "data"
        self.topics = Topics(kafka.brokers, partitions)
        self.config = folder / "kafka.toml"
        self.config.write_text(CONFIG)
        self.seed = random.Random(SEED).randrange(1 << 30)

    def produce(self, count: int, malformed_every: int = 25) -> None:
        self.seed += 1
        posts = generate(count, seed=self.seed, cwd=self.folder)
        self.topics.produce(with_malformed(posts, every=malformed_every, seed=self.seed))

    def start(self, *args: object, data: Path | None = None, **env: str) -> Running:
        settings = self.topics.settings(**env)
        return Running("--config", self.config, "--data", data or self.data, *args, cwd=self.folder, env=settings)

    def scored(self) -> int:
        """How far scoring has come, in offsets."""
        return sum(self.topics.committed().values())

    def finish(self, **env: str) -> None:
        http, grpc = free_ports(2)
        addresses = ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
        command = ("run", "--once", "--config", self.config, "--data", self.data, *addresses)
        done = undertone(*command, cwd=self.folder, env=self.topics.settings(**env), timeout=500)
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def world(kafka: Kafka, tmp_path: Path) -> World:
    print(f"UNDERTONE_CRASH_SEED={SEED}")
    return World(kafka, tmp_path)


def kill_at(world: World, point: str, visit: int) -> None:
    """Starts, waits until the fail point is reached, and kills there."""
    marker = world.folder / "stalled"
    marker.unlink(missing_ok=True)
    env = {"UNDERTONE_FAILPOINTS": f"{point}=stall@{visit}", "UNDERTONE_FAILPOINT_MARKER": str(marker)}
    with world.start(**env, **NAMED) as running:
        running.await_file(marker)


@pytest.mark.timeout(900)
def test_a_kill_at_every_step_and_at_random_moments_loses_and_doubles_nothing(world: World) -> None:
    chance = random.Random(SEED)
    moments: list[str | None] = [*POINTS, *[None] * ROUNDS]
    chance.shuffle(moments)
    for moment in moments:
        world.produce(chance.randint(150, 400))
        if moment:
            kill_at(world, moment, chance.randint(1, 2))
            continue
        with world.start(**NAMED) as running:
            running.await_ready()
            time.sleep(chance.uniform(0, 2))
            assert running.alive(), running.log()
    world.finish()
    assert_promise(world.topics, world.data)


@pytest.mark.timeout(300)
def test_a_broker_that_dies_costs_time_and_no_post(tmp_path: Path) -> None:
    with Kafka(tmp_path / "kafka") as kafka:
        world = World(kafka, tmp_path)
        chance = random.Random(SEED)
        for _ in range(2):
            world.produce(400)
            before = world.scored()
            with world.start() as running:
                running.await_that(lambda: world.scored() > before, "score something")
                kafka.kill()
                time.sleep(chance.uniform(0.5, 3))
                kafka.start()
                # The same process goes on by itself.
                behind = lambda: world.scored() < len(world.topics.events)  # noqa: E731
                running.await_that(lambda: not behind(), "score the rest after the broker came back", 90)
        world.finish()
        assert_promise(world.topics, world.data)


@pytest.mark.timeout(200)
def test_an_owner_that_slept_while_its_partitions_moved_commits_nothing(world: World) -> None:
    """SIGSTOP in the middle of a transaction, with everything produced and only the offsets to be added."""
    world.produce(300)
    marker = world.folder / "asleep"
    env = {"UNDERTONE_FAILPOINTS": "score.flushed=pause@1", "UNDERTONE_FAILPOINT_MARKER": str(marker)}
    with world.start("--roles", "score", data=world.folder / "a", **env) as sleeper:
        sleeper.await_file(marker)
        sleeper.process.send_signal(signal.SIGSTOP)
        # Another takes its partitions over and scores everything.
        with world.start("--roles", "score", data=world.folder / "b") as other:
            total = len(world.topics.events)
            other.await_that(lambda: world.scored() >= total, "take over", 60)
            marker.unlink()
            sleeper.process.send_signal(signal.SIGCONT)
            time.sleep(3)
            world.produce(100)
            total = len(world.topics.events)
            other.await_that(lambda: world.scored() >= total, "go on beside the one that woke", 60)
    world.finish()
    assert_promise(world.topics, world.data)


@pytest.mark.timeout(300)
def test_members_that_join_leave_pause_and_die_share_the_work_and_score_each_post_once(world: World) -> None:
    chance = random.Random(SEED)
    members: list[Running] = []
    try:
        for turn in range(10):
            world.produce(120)
            what = chance.choice(["join", "join", "leave", "die", "pause"]) if members else "join"
            if what == "join" and len(members) < 3:
                members.append(world.start("--roles", "score", data=world.folder / f"m{turn}"))
            elif what == "leave":
                assert members.pop(chance.randrange(len(members))).stop() == 0
            elif what == "die":
                members.pop(chance.randrange(len(members))).kill()
            elif what == "pause":
                paused = chance.choice(members)
                paused.process.send_signal(signal.SIGSTOP)
                time.sleep(2.5)
                paused.process.send_signal(signal.SIGCONT)
            time.sleep(chance.uniform(0.2, 1.5))
    finally:
        for member in members:
            member.kill()
    world.finish()
    assert_promise(world.topics, world.data)


@pytest.mark.timeout(200)
def test_the_oracle_notices_a_post_that_is_written_twice(world: World) -> None:
    """With offsets left out of the transaction, a restart scores again: if that went unnoticed, the test would be worthless."""
    world.produce(200)
    with world.start("--roles", "score", UNDERTONE_SABOTAGE="no-offsets-in-transaction") as running:
        running.await_that(lambda: len(world.topics.consume(world.topics.scored)) >= 150, "write scores")
    world.finish()
    assert any("doubled" in each for each in violations(world.topics, world.data))


@pytest.mark.timeout(200)
def test_the_oracle_notices_an_owner_that_commits_what_is_no_longer_its_own(world: World) -> None:
    """The same sleep as above, but shorter than the session, with partitions that move because another joins; without the
    look at who owns them, and with a generation that is taken after they moved, the sleeper would write what the other has."""
    world.produce(300)
    marker = world.folder / "asleep"
    env = {"UNDERTONE_FAILPOINTS": "score.ready=pause@1", "UNDERTONE_FAILPOINT_MARKER": str(marker)}
    with world.start("--roles", "score", data=world.folder / "a", UNDERTONE_SABOTAGE="no-ownership-check", **env) as first:
        first.await_file(marker)
        with world.start("--roles", "score", data=world.folder / "b") as other:
            other.await_that(lambda: world.scored() > 0, "take partitions over and score them", 60)
            time.sleep(2)
            marker.unlink()
            time.sleep(3)
    world.finish()
    assert any("doubled" in each for each in violations(world.topics, world.data))


@pytest.mark.timeout(200)
@pytest.mark.parametrize("sabotage", ["", "position-before-dead-letters"])
def test_a_dead_letter_is_not_lost_only_because_its_offset_is_committed_with_it(world: World, sabotage: str) -> None:
    """Killed right after the offsets are committed: with the letters to be written after that, they never are."""
    world.produce(200, malformed_every=3)
    marker = world.folder / "stalled"
    env = {"UNDERTONE_FAILPOINTS": "score.committed=stall@1", "UNDERTONE_FAILPOINT_MARKER": str(marker)}
    with world.start("--roles", "score", UNDERTONE_SABOTAGE=sabotage, **env) as running:
        running.await_file(marker)
    world.finish()
    lost = [each for each in violations(world.topics, world.data) if each.startswith(world.topics.dead) and "lost" in each]
    assert bool(lost) == bool(sabotage), lost


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("point", "safeguard"), [("catalog.lost-commit", "no-read-back"), ("catalog.lost-reply", "no-position-check")])
def test_a_catalog_that_lies_is_seen_through_and_only_because_of_the_safeguard(kafka: Kafka, tmp_path: Path, point: str, safeguard: str):
    """It says "done" and did nothing, or did it and says that it failed; of some table's only commit with rows."""
    for sabotage in ("", safeguard):
        folder = tmp_path / (sabotage or "safe")
        folder.mkdir()
        world = World(kafka, folder)
        world.produce(120)
        world.finish(UNDERTONE_FAILPOINTS=f"{point}=on@9", UNDERTONE_SABOTAGE=sabotage, **AT_THE_END)
        found = violations(world.topics, world.data)
        assert bool(found) == bool(sabotage), found
