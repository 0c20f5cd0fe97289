"""The servers that many tests share: each starts when a test first asks for it, and ends with the session.

A test that kills, pauses or fills a server starts its own, or restarts the shared one before it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from install_servers import OPENSEARCH, OPENSEARCH_JAVA, find_newer_java

from .clickhouse import ClickHouse
from .iceberg_rest import IcebergRest
from .kafka import Kafka
from .minio import MinIO
from .opensearch import OpenSearch
from .qdrant import Qdrant


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker at `kafka.brokers`; no topic but those that tests make, under names of their own."""
    with Kafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinIO]:
    """An S3 store at `minio.endpoint`; `minio.properties()` is what an Iceberg client must be told."""
    with MinIO(tmp_path_factory.mktemp("minio")) as running:
        yield running


@pytest.fixture(scope="session")
def iceberg_rest(tmp_path_factory: pytest.TempPathFactory, minio: MinIO) -> Iterator[IcebergRest]:
    """An Iceberg catalog at `iceberg_rest.uri` over `minio`; `load_catalog("rest", **iceberg_rest.properties())`."""
    with IcebergRest(tmp_path_factory.mktemp("iceberg-rest"), minio) as running:
        yield running


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """ClickHouse's engine at `clickhouse.url`, or the server at UNDERTONE_TEST_CLICKHOUSE_URL; tests take tables of their own."""
    if url := os.environ.get("UNDERTONE_TEST_CLICKHOUSE_URL"):
        yield ClickHouse.elsewhere(url)
        return
    with ClickHouse(tmp_path_factory.mktemp("clickhouse"), password="clickhouse-secret") as running:
        yield running


@pytest.fixture(scope="session")
def opensearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSearch]:
    """OpenSearch at `opensearch.url`, or that at UNDERTONE_TEST_OPENSEARCH_URL; tests take indices of their own."""
    if url := os.environ.get("UNDERTONE_TEST_OPENSEARCH_URL"):
        yield OpenSearch.elsewhere(url)
        return
    if not OPENSEARCH.folder.is_dir() or not find_newer_java():
        pytest.skip(f"OpenSearch needs Java {OPENSEARCH_JAVA} or newer, and there is none: `scripts/setup.py servers` fetches one")
    with OpenSearch(tmp_path_factory.mktemp("opensearch")) as running:
        yield running


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Qdrant]:
    """Qdrant's engine at `qdrant.url`, or the server at UNDERTONE_TEST_QDRANT_URL; tests take collections of their own."""
    if url := os.environ.get("UNDERTONE_TEST_QDRANT_URL"):
        yield Qdrant.elsewhere(url)
        return
    with Qdrant(tmp_path_factory.mktemp("qdrant"), key="qdrant-secret") as running:
        yield running
