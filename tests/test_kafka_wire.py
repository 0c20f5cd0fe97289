"""Answers that are lost on the way from a real broker: what was asked is done, and nobody hears of it, for less or for more
time than the client waits. The oracle then counts.

The seed is printed; UNDERTONE_CRASH_SEED repeats a run, UNDERTONE_KAFKA_LOSSES makes it longer.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from servers.kafka import Kafka
from support.kafka_wire import REQUESTS, KafkaWire
from support.topics import assert_promise
from test_kafka_crash import SEED, World

LOSSES = int(os.environ.get("UNDERTONE_KAFKA_LOSSES", "30"))
# A step of a transaction may take eight seconds, a session 1.5.
OUTAGES = [0.1, 0.1, 0.1, 1, 1, 3, 9.5]
# Those of a transaction that come between.
OTHERS = ["AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit"]


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", ["Produce", "EndTxn", *(pytest.param(name, marks=pytest.mark.full) for name in OTHERS)])
def test_a_transaction_whose_answer_was_lost_counts_once(tmp_path: Path, name: str) -> None:
    """The broker has the outcomes, or has even committed them, and for longer than a step of a transaction may take nobody
    hears of it. The same outcomes then come again, from the first number: a broker that took them for what it has already
    would answer that it has them, and they would be in no transaction that is ever committed."""
    kafka = Kafka(tmp_path / "kafka")
    with KafkaWire(kafka) as wire, kafka:
        world = World(kafka, tmp_path, partitions=1)
        world.produce(30)
        with world.start() as running:
            running.await_that(lambda: world.scored() == len(world.topics.events), "score what was there")
            world.produce(30)
            wire.lose(REQUESTS[name], 10)
            assert wire.lost.wait(60), running.log()
            running.await_that(lambda: world.scored() == len(world.topics.events), "score the rest", 90)
            # What the client has to say about it is in the log, and once a second.
            lines = running.log().splitlines()
            assert not [line for line in lines if line.startswith("%")]
            assert 0 < len([line for line in lines if "client is in trouble" in line]) < 60
        world.finish()
        assert_promise(world.topics, world.data)


@pytest.mark.full
@pytest.mark.timeout(200 + 30 * LOSSES)
def test_whatever_answer_is_lost_nothing_else_is(tmp_path: Path) -> None:
    print(f"UNDERTONE_CRASH_SEED={SEED}")
    chance = random.Random(SEED)
    kafka = Kafka(tmp_path / "kafka")
    lost = []
    with KafkaWire(kafka) as wire, kafka:
        world = World(kafka, tmp_path)
        world.produce(100)
        with world.start() as running:
            running.await_ready()
            while len(lost) < LOSSES:
                world.produce(chance.randint(20, 120))
                name, outage = chance.choice(sorted(REQUESTS)), chance.choice(OUTAGES)
                wire.lose(REQUESTS[name], outage)
                # Some are sent only after another was lost.
                if wire.lost.wait(3):
                    lost.append((name, outage))
                    print("lost", name, outage)
            wire.mend()
            running.await_that(lambda: world.scored() == len(world.topics.events), "score the rest", 90)
        world.finish()
        assert_promise(world.topics, world.data)
