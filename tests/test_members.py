"""Several processes of one role: who sleeps, joins, leaves or dies, and a table that all of them write.

The catalog is Apache's, the store MinIO, the broker Kafka. Bronze reads what nobody has scored, so most of this needs no model.
UNDERTONE_MEMBER_TURNS makes the random part longer, UNDERTONE_CRASH_SEED repeats it.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog, load_catalog
from servers.iceberg_rest import IcebergRest
from servers.kafka import Kafka
from servers.minio import MinIO
from support.campaign import CONFIG
from support.catalog import PYARROW, clear, server  # noqa: F401
from support.ledger import Ledger
from support.posts import generate, with_malformed
from support.process import Running, free_ports, undertone
from support.topics import Topics, assert_promise, violations

SEED = int(os.environ.get("UNDERTONE_CRASH_SEED") or time.time_ns() % 1_000_000)
TURNS = int(os.environ.get("UNDERTONE_MEMBER_TURNS") or (100 if os.environ.get("UNDERTONE_TEST_FULL") else 15))
MEMBERS = 4
OFTEN = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "200ms", "UNDERTONE_SINKS__COMMIT_ROWS": "200"}


class Group:
    """Topics, a catalog, and a way to start processes on them."""

    def __init__(self, kafka: Kafka, server: IcebergRest, minio: MinIO, folder: Path) -> None:
        self.folder, self.topics = folder, Topics(kafka.brokers, partitions=4)
        self.catalog: Catalog = load_catalog("rest", **server.properties(), **PYARROW)
        self.config = folder / "u.toml"
        self.config.write_text(server.toml() + minio.toml() + CONFIG)
        self.env = minio.keys() | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} | OFTEN
        self.seed = SEED

    def produce(self, count: int) -> None:
        self.seed += 1
        self.topics.produce(with_malformed(generate(count, seed=self.seed, cwd=self.folder), every=20, seed=self.seed))

    def start(self, roles: str, **env: str) -> Running:
        settings = self.topics.settings(**env) | self.env
        return Running("--config", self.config, "--roles", roles, cwd=self.folder, env=settings)


@pytest.fixture
def group(kafka: Kafka, server: IcebergRest, minio: MinIO, tmp_path: Path) -> Iterator[Group]:
    print(f"UNDERTONE_CRASH_SEED={SEED}")
    group = Group(kafka, server, minio, tmp_path)
    yield group
    clear(group.catalog)


@pytest.mark.timeout(240)
def test_each_role_in_a_process_of_its_own(group: Group) -> None:
    group.produce(300)
    running = [group.start(role) for role in ("score", "score", "bronze", "silver", "gold", "gold")]
    try:
        group.produce(300)
        running[0].await_that(lambda: not violations(group.topics, group.catalog), "score and store everything", 90)
        for each in running:
            assert each.stop() == 0, each.log()
    finally:
        for each in running:
            each.kill()
    assert_promise(group.topics, group.catalog)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("sabotage", ["", "no-wait-for-others"])
def test_once_also_does_what_members_that_died_have_left_and_only_because_it_waits(group: Group, sabotage: str) -> None:
    """Members with a name come back to the partitions that they had; those of another who died come after its session only."""
    roles = "score,bronze,silver,gold"
    # Long enough that a process which did not wait would have ended before.
    group.config.write_text(group.config.read_text().replace('"session.timeout.ms" = 1500', '"session.timeout.ms" = 12000'))
    group.produce(200)
    with group.start(roles, UNDERTONE_KAFKA__INSTANCE="one") as one, group.start(roles, UNDERTONE_KAFKA__INSTANCE="other") as other:
        one.await_that(lambda: not violations(group.topics, group.catalog), "score and store everything", 90)
        other.await_that(lambda: has_partitions(other), "take partitions over", 60)
    group.produce(200)
    settings = group.topics.settings(UNDERTONE_KAFKA__INSTANCE="one", UNDERTONE_SABOTAGE=sabotage) | group.env
    http, grpc = (f"127.0.0.1:{port}" for port in free_ports(2))
    addresses = ("--http", http, "--grpc", grpc)
    done = undertone("run", "--once", "--config", group.config, "--roles", roles, *addresses, cwd=group.folder, env=settings)
    assert done.returncode == 0, done.stderr.decode()
    if sabotage:
        found = violations(group.topics, group.catalog)
        assert any("lost" in each for each in found), found
        return
    assert b"other processes have not stored" in done.stderr, done.stderr.decode()
    assert_promise(group.topics, group.catalog)


def has_partitions(running: Running) -> bool:
    """Of every role's topic."""
    return len(re.findall(r"partitions assigned partitions=\{\d", running.log())) >= 4


def sleep_in_a_commit(group: Group, ledger: Ledger, point: str, **env: str) -> list[str]:
    """A bronze process sleeps at a step of its commit, another takes its partitions over and stores everything, and the first
    wakes. What is wrong afterwards."""
    marker = group.folder / "asleep"
    group.produce(200)
    # The first commit only says where partitions begin.
    env |= {"UNDERTONE_FAILPOINTS": f"{point}=pause@2", "UNDERTONE_FAILPOINT_MARKER": str(marker)}
    with group.start("bronze", **env) as sleeper:
        sleeper.await_file(marker)
        sleeper.process.send_signal(signal.SIGSTOP)
        with group.start("bronze") as other:
            stored = lambda: not ledger.read_tables() and is_stored(ledger)  # noqa: E731
            other.await_that(stored, "take over and store everything", 60)
            marker.unlink()
            sleeper.process.send_signal(signal.SIGCONT)
            time.sleep(2)
            group.produce(50)
            other.await_that(lambda: stored() or ledger.check_tables(), "go on beside the one that woke", 60)
            assert sleeper.alive(), sleeper.log()
    return ledger.read_tables() + ledger.check_tables()


def is_stored(ledger: Ledger) -> bool:
    return sum(ledger.tables["bronze.posts"].places.values()) >= len(ledger.topics.events)


@pytest.fixture
def ledger(group: Group) -> Iterator[Ledger]:
    ledger = Ledger(group.topics, group.catalog)
    yield ledger
    ledger.close()


@pytest.mark.parametrize("point", ["sink.files-closed", "catalog.before-commit"])
def test_an_owner_that_slept_while_its_partitions_moved_commits_nothing(group: Group, ledger: Ledger, point: str) -> None:
    """Before the fence looks, and between its look and the commit."""
    assert sleep_in_a_commit(group, ledger, point) == []


def test_without_the_fence_an_owner_that_slept_doubles_rows(group: Group, ledger: Ledger) -> None:
    found = sleep_in_a_commit(group, ledger, "sink.files-closed", UNDERTONE_SABOTAGE="no-position-check")
    assert any("doubled" in each for each in found), found


@pytest.mark.timeout(120 + 20 * TURNS)
def test_members_that_join_leave_pause_and_die_write_one_table_together(group: Group, ledger: Ledger) -> None:
    chance = random.Random(SEED)
    members: list[Running] = []
    turns = {"join": 0, "leave": 0, "die": 0, "pause": 0}
    try:
        for _ in range(TURNS):
            group.produce(chance.randint(20, 120))
            joins = ["join"] * 3 if len(members) < MEMBERS else []
            what = chance.choice([*joins, "leave", "die", "pause", "pause"]) if members else "join"
            turns[what] += 1
            if what == "join":
                members.append(group.start("bronze"))
            elif what == "leave":
                member = members.pop(chance.randrange(len(members)))
                assert member.stop() == 0, member.log()
            elif what == "die":
                members.pop(chance.randrange(len(members))).kill()
            else:
                paused = chance.choice(members)
                paused.process.send_signal(signal.SIGSTOP)
                time.sleep(chance.uniform(1, 3))
                paused.process.send_signal(signal.SIGCONT)
            time.sleep(chance.uniform(0.2, 1.5))
            assert all(member.alive() for member in members), [member.log() for member in members if not member.alive()]
            found = ledger.read_tables() + ledger.check_tables()
            assert not found, f"{what}: {found}"
        with group.start("bronze") as last:
            last.await_that(lambda: not ledger.read_tables() and is_stored(ledger), "store the rest", 60)
    finally:
        for member in members:
            member.kill()
    print(turns)
    assert ledger.read_tables() + ledger.check_tables() == []
    assert ledger.checks["rows of bronze.posts"] == len(group.topics.events)
