"""Qdrant, OpenSearch and ClickHouse behind `posts.scored`: what each holds in the end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from servers.clickhouse import ClickHouse
from servers.kafka import Kafka
from servers.opensearch import OpenSearch
from servers.qdrant import Qdrant
from support.latest import SINKS, Stores, World, append, assert_latest, scored, tombstone, wanted
from support.posts import line, now, post

# The first test starts the servers, and OpenSearch takes half a minute on an idle machine.
pytestmark = [pytest.mark.timeout(400), pytest.mark.full]


@pytest.fixture
def world(kafka: Kafka, clickhouse: ClickHouse, opensearch: OpenSearch, qdrant: Qdrant, tmp_path: Path) -> Iterator[World]:
    stores = Stores(tmp_path, clickhouse, opensearch, qdrant)
    yield World(kafka, stores, tmp_path)
    stores.drop()


def mixed(count: int) -> list:
    """Posts of which some are edited, some deleted, some deleted and posted again; not in the order of their versions."""
    posts = [scored(number) for number in range(count)]
    posts += [scored(number, 5) for number in range(0, count, 4)]
    posts += [scored(number, 3) for number in range(0, count, 8)]  # late: an older edit
    posts += [tombstone(number, 7) for number in range(1, count, 6)]
    posts += [scored(number, 2) for number in range(1, count, 12)]  # late: before the deletion
    posts += [scored(number, 9) for number in range(1, count, 18)]  # again
    return posts


def test_posts_edits_and_deletions_go_from_the_raw_topic_to_all_three(world: World) -> None:
    created = now()
    events = [post(number, created_at=created) for number in range(60)]
    events += [post(number, text=f"edited, no. {number}", created_at=created, edited_at=now()) for number in range(0, 60, 5)]
    events += [post(number, created_at=created, edited_at=now(timedelta(seconds=1)), deleted=True) for number in range(1, 60, 7)]
    world.topics.produce([line(event) for event in events])
    world.run_once("score")
    world.run_once()
    assert_latest(world.topics, world.stores)
    for sink in SINKS:
        assert len(world.stores.shown(sink)) == 60 - len(range(1, 60, 7))


def test_charts_equal_a_count_over_the_latest_posts(world: World) -> None:
    posts = mixed(60)
    append(world.topics, posts)
    world.run_once("clickhouse")
    world.group += "-again"
    world.run_once("clickhouse")
    counted = world.stores.clickhouse.query(
        f"SELECT count() AS posts, avg(polarity) AS mean FROM {world.stores.name} FINAL WHERE day = '2026-05-01' AND has(tags, 'tea')"
    )
    polarities = [polarity for _, _, polarity in wanted(posts).values()]
    assert counted[0]["posts"] == len(polarities)
    assert counted[0]["mean"] == pytest.approx(sum(polarities) / len(polarities))


def test_a_post_that_is_forgotten_is_gone_from_all_three(world: World) -> None:
    created = now()
    world.topics.produce([line(post(number, text=f"secret {number}", created_at=created)) for number in range(6)])
    world.run_once("score,silver")
    world.run_once()
    (uid,) = [uid for uid, (_, text, _) in world.stores.shown("clickhouse").items() if text == "secret 3"]
    done = world.command("forget", "--source", "test", "--id", "p3")
    assert done.returncode == 0, done.stderr.decode()
    world.run_once("score,silver")
    world.run_once()
    assert_latest(world.topics, world.stores)
    stores = world.stores
    for sink in SINKS:
        shown = stores.shown(sink)
        assert len(shown) == 5 and uid not in shown
    # Beyond what readers see: nothing of it is kept but that it was deleted.
    stores.opensearch.call("POST", f"/{stores.name}-*/_refresh")
    hits = stores.opensearch.call("POST", f"/{stores.name}-*/_search", {"query": {"ids": {"values": [uid]}}})["hits"]["hits"]
    assert [(hit["_source"]["deleted"], hit["_source"]["text"]) for hit in hits] == [(True, "")]
    (point,) = stores.qdrant.client().retrieve(stores.name, [uid], with_vectors=True)
    assert point.payload["deleted"] and not point.vector and "text" not in point.payload
    stores.clickhouse.query(f"OPTIMIZE TABLE {stores.name} FINAL")
    rows = stores.clickhouse.query(f"SELECT is_deleted, text FROM {stores.name} WHERE uid = '{uid}'")
    assert all(row == {"is_deleted": 1, "text": ""} for row in rows)


def test_clickhouse_forgets_days_that_are_older_than_they_are_kept_and_none_of_a_wild_clock(world: World) -> None:
    stores = world.stores
    stores.write_config({"clickhouse": "retention_days = 10\n"})
    today = datetime.now(timezone.utc).replace(hour=0, minute=1)
    posts = [scored(age, created_ms=int((today - timedelta(days=age)).timestamp() * 1000)) for age in (0, 9, 10, 11, 300)]
    wild = [scored(900, created_ms=6_627_312_000_000), scored(901, created_ms=8_000_000_000_000)]  # 2180, 2223
    append(world.topics, [*posts, *wild])
    world.run_once("clickhouse")
    # Whether or not their parts are merged yet, readers see none of them.
    with world.start("gateway") as gateway:
        gateway.await_ready()
        between = {"from": (today - timedelta(days=20)).strftime("%Y-%m-%dT%H:%M:%SZ"), "to": (today + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")}
        shown = gateway.get("/v1/query/latest", params=between).json()
        assert shown["store"] == "clickhouse"
        assert {post["uid"] for post in shown["posts"]} == {post.uid for post in posts[:2]}
    stores.clickhouse.query(f"OPTIMIZE TABLE {stores.name} FINAL")
    assert stores.shown("clickhouse") == wanted([*posts[:2], *wild])


def test_indices_of_days_that_are_older_than_they_are_kept_are_deleted_when_asked(world: World) -> None:
    stores = world.stores
    stores.write_config({"opensearch": "retention_days = 10\n"})
    today = datetime.now(timezone.utc)
    ages = [0, 9, 10, 11, 12, 300]
    posts = [scored(age, created_ms=int((today - timedelta(days=age)).timestamp() * 1000)) for age in ages]
    wild = scored(999, created_ms=8_000_000_000_000)
    append(world.topics, [*posts, wild])
    world.run_once("opensearch")
    # Of the same form, and not ours.
    foreign = f"{stores.name}-2020.01.01"
    stores.opensearch.call("PUT", f"/{foreign}")
    stores.opensearch.call("POST", "/_aliases", {"actions": [{"remove": {"index": foreign, "alias": stores.name}}]})
    gone = sorted(f"{stores.name}-{(today - timedelta(days=age)):%Y.%m.%d}" for age in ages[3:])
    told = world.command("maintain", "--sink", "opensearch")
    assert told.returncode == 0, told.stderr.decode()
    lines = told.stdout.decode().splitlines()
    assert [each.split()[0] for each in lines[:-1]] == gone and all("would delete: 1 documents" in each for each in lines[:-1]), lines
    assert len(stores.shown("opensearch")) == len(posts) + 1, "nothing was changed"
    done = world.command("maintain", "--sink", "opensearch", "--apply")
    assert done.returncode == 0 and done.stdout.decode().count("deleted") == len(gone), done.stdout
    assert stores.shown("opensearch") == wanted([*posts[:3], wild])
    assert foreign in stores.opensearch.call("GET", f"/{stores.name}-*")
    other = world.command("maintain", "--sink", "qdrant")
    assert other.returncode == 2 and b"qdrant keeps every post" in other.stderr
