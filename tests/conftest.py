"""Fixtures of the black-box tests. They start the real binary (UNDERTONE_BIN), each on free ports in temporary folders.

The servers that many tests share are started once; a test that changes or ends a process starts its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from servers.fixtures import clickhouse, iceberg_rest, kafka, minio, opensearch, qdrant  # noqa: E402, F401
from support.process import BINARY, MODEL, Running  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "timeout(seconds): the longest that a test may take")
    config.addinivalue_line("markers", "full: runs in `make test-full` alone")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).resolve().parent
    for item in items:
        if here in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(120))
        if item.get_closest_marker("full") and not os.environ.get("UNDERTONE_TEST_FULL"):
            item.add_marker(pytest.mark.skip(reason="`make test-full` runs it"))


@pytest.fixture(scope="session", autouse=True)
def binary() -> Path:
    """The binary under test. Without it or its model nothing here means anything, so nothing is skipped."""
    if not BINARY.is_file():
        pytest.exit(f"no binary at {BINARY}; build it (`make test` does), or set UNDERTONE_BIN", returncode=2)
    if not (MODEL / "config.json").is_file():
        pytest.exit(f"no model folder at {MODEL}; `make test` fetches it, or set UNDERTONE_TEST_MODEL", returncode=2)
    return BINARY


# Ten minutes of history, so that the page has a plot to draw, then 20 posts a second.
LIVE = {
    "UNDERTONE_GENERATOR__BACKFILL": "10m",
    "UNDERTONE_GENERATOR__BACKFILL_RATE": "1.0",
    "UNDERTONE_GENERATOR__RATE": "20.0",
    "UNDERTONE_SINKS__COMMIT_INTERVAL": "2s",
    "UNDERTONE_GATEWAY__MAX_TEXTS": "200",
    "UNDERTONE_GATEWAY__MAX_TEXT_BYTES": "4096",
    "UNDERTONE_GATEWAY__MAX_BODY_BYTES": "262144",
}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running stream of synthetic posts with its gateway, shared by every test that only looks."""
    folder = tmp_path_factory.mktemp("server")
    with Running("--data", folder / "data", cwd=folder, env=LIVE) as running:
        yield running.await_ready()
        assert running.alive(), f"the shared server ended by itself:\n{running.log()}"
