"""The kill test of Qdrant, OpenSearch and ClickHouse: sinks and stores die at every step; then the oracle looks at all three.

Each round appends posts, edits and deletions in no order, starts the three sinks, and kills them at a fail point or at a
random moment, or kills a store under them. The seed is printed; UNDERTONE_CRASH_SEED repeats a run,
UNDERTONE_LATEST_ROUNDS makes it longer. Runs in `make test-full`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.clickhouse import ClickHouse
from servers.kafka import Kafka
from servers.opensearch import OpenSearch
from servers.qdrant import Qdrant
from support.latest import SINKS, Stores, append, assert_latest, letters, scored, tombstone, violations
from support.process import Running
from support.proxy import Proxy
from test_latest import THREE, World

SEED = int(os.environ.get("UNDERTONE_CRASH_SEED") or time.time_ns() % 1_000_000)
pytestmark = pytest.mark.full
ROUNDS = int(os.environ.get("UNDERTONE_LATEST_ROUNDS", "6"))
POINTS = ["latest.stored", "latest.settled", *(f"{sink}.{step}" for sink, step in zip(SINKS, ("begun", "offsets-sent", "committed"), strict=True))]


@pytest.fixture
def world(kafka: Kafka, opensearch: OpenSearch, tmp_path: Path) -> Iterator[World]:
    """Stores of its own, where starting them again costs a second; OpenSearch is everybody's, and is up again at the end."""
    print(f"UNDERTONE_CRASH_SEED={SEED}")
    with ClickHouse(tmp_path / "clickhouse", password="secret") as clickhouse, Qdrant(tmp_path / "qdrant", key="secret") as qdrant:
        yield World(kafka, Stores(tmp_path, clickhouse, opensearch, qdrant), tmp_path)
    if not opensearch.alive():
        opensearch.start()


def posts(chance: random.Random, count: int) -> list:
    """Versions of few posts, so that they meet; some cannot be taken."""
    some = []
    for _ in range(count):
        number, version = chance.randrange(400), chance.randrange(1, 50)
        if chance.random() < 0.1:
            some.append(tombstone(number, version))
        else:
            bad = {"polarity": float("nan")} if chance.random() < 0.005 else {}
            some.append(scored(number, version, **bad))
    return some


def kill_at(world: World, point: str, visit: int) -> None:
    marker = world.folder / "stalled"
    marker.unlink(missing_ok=True)
    with world.start(THREE, UNDERTONE_FAILPOINTS=f"{point}=stall@{visit}", UNDERTONE_FAILPOINT_MARKER=str(marker)) as running:
        running.await_file(marker)


@pytest.mark.timeout(400)
def test_kills_of_sinks_and_of_stores_leave_every_store_with_the_latest(world: World) -> None:
    chance = random.Random(SEED)
    stores = world.stores
    moments = [*POINTS, stores.clickhouse, stores.qdrant, stores.opensearch, *[None] * ROUNDS]
    chance.shuffle(moments)
    append(world.topics, posts(chance, 100))
    world.run_once()
    for moment in moments:
        append(world.topics, posts(chance, chance.randint(100, 600)))
        if isinstance(moment, str):
            kill_at(world, moment, 1)
        elif moment is None:
            with world.start(THREE) as running:
                running.await_that(lambda: "sink goes on" in running.log(), "begin")
                time.sleep(chance.uniform(0, 2))
        else:
            with world.start(THREE) as running:
                running.await_that(lambda: "sink goes on" in running.log(), "begin")
                time.sleep(chance.uniform(0, 1))
                moment.kill()
                append(world.topics, posts(chance, 100))
                time.sleep(chance.uniform(0, 1))
                moment.start()
    world.run_once()
    assert_latest(world.topics, stores)


@pytest.mark.timeout(200)
def test_answers_that_are_lost_change_nothing(world: World) -> None:
    """The store has done what it was asked, and its connection ends before it can say so."""
    chance = random.Random(SEED)
    writes = lambda request: request.method == "POST" and (request.path.startswith("/_bulk") or b"INSERT" in request.path.encode().upper())  # noqa: E731
    with Proxy(world.stores.opensearch.url) as documents, Proxy(world.stores.clickhouse.url) as rows:
        world.stores.write_config(opensearch=documents.uri, clickhouse=rows.uri)
        for proxy in (documents, rows):
            proxy.lose(writes, times=2)
            proxy.repeat(writes, times=2)
        append(world.topics, posts(chance, 300))
        with world.start(THREE) as running:
            running.await_that(lambda: len(documents.lost()) == 2 and len(rows.lost()) == 2, "lose answers", 60)
        world.run_once()
    assert_latest(world.topics, world.stores)


@pytest.mark.timeout(100)
def test_the_oracle_notices_a_position_that_moves_before_its_posts_are_stored(world: World) -> None:
    append(world.topics, [scored(number) for number in range(50)])
    world.run_once("clickhouse")
    append(world.topics, [scored(number, 2) for number in range(50)])
    marker = world.folder / "stalled"
    sabotage = {"UNDERTONE_SABOTAGE": "settle-before-store", "UNDERTONE_FAILPOINTS": "latest.settled-first=stall@1"}
    with world.start("clickhouse", UNDERTONE_FAILPOINT_MARKER=str(marker), **sabotage) as running:
        running.await_file(marker)
        running.await_that(lambda: sum(committed(world, running)) >= 100, "move its position", 30)
    world.run_once("clickhouse")
    assert any("clickhouse shows another version" in each for each in violations(world.topics, world.stores, ["clickhouse"]))
    assert letters(world.topics, "clickhouse") == {}


def committed(world: World, _: Running) -> list[int]:
    return list(world.topics.committed("clickhouse", world.topics.scored).values())
