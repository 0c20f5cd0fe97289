"""Qdrant, OpenSearch and ClickHouse, read by the Python client that each publishes: what was written is there, and is found."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import clickhouse_connect
import pytest
from opensearchpy import OpenSearch as OpenSearchClient
from opensearchpy import helpers

from servers.clickhouse import ClickHouse
from servers.kafka import Kafka
from servers.opensearch import OpenSearch
from servers.qdrant import Qdrant
from support.latest import Stores, World, append, figure, scored, tombstone, wanted

# The first test starts the servers, and OpenSearch takes half a minute on an idle machine.
pytestmark = pytest.mark.timeout(400)

POSTS = [
    *(scored(number, tags=["tea", "even" if number % 2 == 0 else "odd"]) for number in range(60)),
    *(scored(number, 5, tags=["tea", "edited"]) for number in range(0, 60, 4)),
    *(tombstone(number, 7) for number in range(1, 60, 6)),
]


@pytest.fixture(scope="module")
def stores(
    kafka: Kafka, clickhouse: ClickHouse, opensearch: OpenSearch, qdrant: Qdrant, tmp_path_factory: pytest.TempPathFactory
) -> Stores:  # fmt: skip
    """The three, after the posts above."""
    folder = tmp_path_factory.mktemp("clients")
    stores = Stores(folder, clickhouse, opensearch, qdrant)
    world = World(kafka, stores, folder)
    append(world.topics, POSTS)
    world.run_once()
    yield stores
    stores.drop()


def test_clickhouse_connect(stores: Stores) -> None:
    server = urlsplit(stores.clickhouse.url)
    client = clickhouse_connect.get_client(
        host=server.hostname, port=server.port, username="default", password=stores.clickhouse.password,
        # What the engine behind the tests has not: sessions, and answers that are compressed.
        compress=False, autogenerate_session_id=False,
    )  # fmt: skip
    rows = client.query(f"SELECT uid, version, text, polarity FROM {stores.name} FINAL").result_rows
    assert {str(uid): (version, text, figure(polarity)) for uid, version, text, polarity in rows} == wanted(POSTS)
    counts = client.query(f"SELECT arrayJoin(tags) AS tag, count() FROM {stores.name} FINAL GROUP BY tag").result_rows
    assert dict(counts)["edited"] == sum("version 5" in text for _, text, _ in wanted(POSTS).values())
    client.close()


def test_opensearch_py(stores: Stores) -> None:
    client = OpenSearchClient(stores.opensearch.url)
    client.indices.refresh(index=f"{stores.name}-*")
    found = helpers.scan(client, index=stores.name, query={"query": {"match_all": {}}})
    sources = [hit["_source"] for hit in found]
    assert {each["uid"]: (each["version"], each["text"], figure(each.get("polarity"))) for each in sources} == wanted(POSTS)
    query = {"bool": {"must": {"match_phrase": {"text": "post 8 in version 5"}}, "filter": {"term": {"tags": "edited"}}}}
    hits = client.search(index=stores.name, body={"query": query})["hits"]["hits"]
    assert [hit["_id"] for hit in hits] == [scored(8).uid]
    client.close()


def test_qdrant_client(stores: Stores) -> None:
    assert stores.shown("qdrant") == wanted(POSTS)  # by way of that client
    client = stores.qdrant.client()
    near = client.query_points(stores.name, query=list(scored(8).embedding), using="text", limit=2, with_payload=["text"]).points
    assert str(near[0].id) == scored(8).uid and near[0].payload["text"] == "post 8 in version 5"
    assert near[0].score == pytest.approx(1, abs=1e-3) and near[1].score < 0.9
    client.close()
