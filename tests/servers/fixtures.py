"""The servers that many tests share: each starts when a test first asks for it, and ends with the session.

A test that kills, pauses or fills a server starts its own, or restarts the shared one before it ends.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .kafka import Kafka


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker at `kafka.brokers`; no topic but those that tests make, under names of their own."""
    with Kafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running
