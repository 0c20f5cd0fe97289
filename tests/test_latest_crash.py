"""The kill test of Qdrant, OpenSearch and ClickHouse: sinks and stores die at every step; then the oracle looks at all three.

A short run of support/rounds.py, of which `make crash-latest` is the long one. The seed is printed; UNDERTONE_CRASH_SEED
repeats a run, UNDERTONE_LATEST_ROUNDS makes it longer. The last test switches a safeguard off, and demands that the oracle
notices.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.clickhouse import ClickHouse
from servers.kafka import Kafka
from servers.opensearch import OpenSearch
from servers.qdrant import Qdrant
from support.latest import Stores, World, append, letters, scored, violations
from support.rounds import Rounds

SEED = int(os.environ.get("UNDERTONE_CRASH_SEED") or time.time_ns() % 1_000_000)
ROUNDS = int(os.environ.get("UNDERTONE_LATEST_ROUNDS", "40"))


@pytest.fixture
def world(kafka: Kafka, opensearch: OpenSearch, tmp_path: Path) -> Iterator[World]:
    """Stores of its own, where starting them again costs a second; OpenSearch is everybody's, and is up again at the end."""
    print(f"UNDERTONE_CRASH_SEED={SEED}")
    if not opensearch.is_ours:
        pytest.skip("kills OpenSearch, which is somebody else's")
    with ClickHouse(tmp_path / "clickhouse", password="secret") as clickhouse, Qdrant(tmp_path / "qdrant", key="secret") as qdrant:
        yield World(kafka, Stores(tmp_path, clickhouse, opensearch, qdrant), tmp_path)
    if not opensearch.alive():
        opensearch.start()


@pytest.mark.timeout(120 + 40 * ROUNDS)
def test_kills_of_sinks_and_of_stores_leave_every_store_with_the_latest(world: World) -> None:
    with Rounds(world, SEED) as rounds:
        for number in range(ROUNDS):
            rounds.play(restarts=1)
            # A look costs as much as a round, so that not every one has its own.
            if number % 3 == 2 or number == ROUNDS - 1:
                rounds.look()
        print(rounds.report())


@pytest.mark.timeout(100)
def test_the_oracle_notices_a_position_that_moves_before_its_posts_are_stored(world: World) -> None:
    append(world.topics, [scored(number) for number in range(50)])
    world.run_once("clickhouse")
    append(world.topics, [scored(number, 2) for number in range(50)])
    marker = world.folder / "stalled"
    sabotage = {"UNDERTONE_SABOTAGE": "settle-before-store", "UNDERTONE_FAILPOINTS": "latest.settled-first=stall@1"}
    with world.start("clickhouse", UNDERTONE_FAILPOINT_MARKER=str(marker), **sabotage) as running:
        running.await_file(marker)
        committed = lambda: sum(world.topics.committed("clickhouse", world.topics.scored).values())  # noqa: E731
        running.await_that(lambda: committed() >= 100, "move its position", 30)
    world.run_once("clickhouse")
    assert any("clickhouse shows another version" in each for each in violations(world.topics, world.stores, ["clickhouse"]))
    assert letters(world.topics, "clickhouse") == {}
