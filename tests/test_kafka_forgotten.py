"""A transaction that the broker forgets to end: it calls it aborted, and its records stay open in their partitions.

Kafka does so when a partition has no leader at the moment at which its coordinator ends the transaction ("likely deleted already
and hence can be skipped"), as after a broker that was killed in a transaction and is started again once that has timed out. With
the next commit of the same producer id those records would be committed, too: outcomes would be doubled.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from servers.kafka import Kafka
from support.topics import assert_promise
from test_kafka_crash import NAMED, World, kill_at

# What the broker is given to end a transaction whose owner is gone: stream/src/kafka/producer.rs.
TRANSACTION_SECONDS = 10


FORGOTTEN = "likely deleted already and hence can be skipped"


@pytest.mark.timeout(400)
def test_outcomes_of_a_transaction_that_the_broker_forgot_to_end_are_not_committed_with_the_next(tmp_path: Path) -> None:
    with Kafka(tmp_path / "kafka") as kafka:
        world = World(kafka, tmp_path)
        # Whether it forgets depends on which of its own time-outs comes first, on a busy machine not always on the same.
        for _ in range(4):
            world.produce(300)
            # Everything is written, and nothing is committed.
            kill_at(world, "score.offsets-sent", 1)
            kafka.kill()
            time.sleep(TRANSACTION_SECONDS)
            kafka.start()
            world.finish(**NAMED)
            assert_promise(world.topics, world.data)
            if FORGOTTEN in kafka.log():
                return
        pytest.skip("the broker ended every transaction as it should")
