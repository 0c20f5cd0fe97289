"""TLS to Qdrant, OpenSearch and ClickHouse: what the system trusts is written to, and nothing is sent to anybody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.certificates import make_certificates
from support.latest import SINKS, World, append, assert_latest, letters, scored
from support.tls_door import TlsDoor
from test_latest import world  # noqa: F401

# The first test starts the servers, and OpenSearch takes half a minute on an idle machine.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def doors(world: World, tmp_path: Path) -> Iterator[dict[str, TlsDoor]]:  # noqa: F811
    """In front of each store."""
    certificates = make_certificates(tmp_path)
    with ExitStack() as stack:
        doors = {sink: stack.enter_context(TlsDoor(getattr(world.stores, sink).url, certificates)) for sink in SINKS}
        world.stores.write_config(**{sink: door.url for sink, door in doors.items()})
        yield doors


def test_stores_behind_tls_are_written_to_and_strangers_are_not(world: World, doors: dict[str, TlsDoor], tmp_path: Path) -> None:  # noqa: F811
    # Without the authority every sink waits, and says why; nothing is dead-lettered.
    append(world.topics, [scored(number) for number in range(40)])
    with world.start(",".join(SINKS)) as running:
        waits = lambda: {sink for sink in SINKS if waiting(running, sink, "certificate")}  # noqa: E731
        running.await_that(lambda: waits() == set(SINKS), "wait, because of the certificate", 60)
    assert not any(door.entered for door in doors.values())
    assert not any(letters(world.topics, sink) for sink in SINKS)

    # rustls takes the system's authorities from here.
    world.run_once(SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    assert all(door.entered for door in doors.values())
    assert_latest(world.topics, world.stores)


def waiting(running, sink: str, word: str) -> bool:
    """Whether a sink's last line says that it waits for a reason with `word`."""
    lines = [line for line in running.log().splitlines() if f'sink="{sink}"' in line and "sink waits" in line]
    return bool(lines) and word in lines[-1].lower()
