"""Qdrant, OpenSearch and ClickHouse behind `posts.scored`: what each holds in the end."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from servers.clickhouse import ClickHouse
from servers.kafka import Kafka
from servers.opensearch import OpenSearch
from servers.qdrant import Qdrant
from support.latest import SINKS, Stores, append, assert_latest, scored, tombstone, wanted
from support.posts import line, now, post
from support.process import Running, free_ports, undertone
from support.topics import Topics

THREE = ",".join(SINKS)
# The first test starts the servers, and OpenSearch takes half a minute on an idle machine.
pytestmark = [pytest.mark.timeout(400), pytest.mark.full]


class World:
    """Topics, stores, and whoever works on them."""

    def __init__(self, kafka: Kafka, stores: Stores, folder: Path) -> None:
        self.topics, self.stores, self.folder = Topics(kafka.brokers), stores, folder
        self.group = self.topics.group

    def settings(self, **more: str) -> dict[str, str]:
        return self.topics.settings(UNDERTONE_KAFKA__GROUP=self.group) | self.stores.secrets() | more

    def run_once(self, roles: str = THREE, **env: str) -> None:
        """Everything that the topics hold by now is stored when it returns."""
        http, grpc = free_ports(2)
        addresses = ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
        command = ("run", "--once", "--config", self.stores.config, "--roles", roles, *addresses)
        done = undertone(*command, cwd=self.folder, env=self.settings(**env), timeout=100)
        assert done.returncode == 0, done.stderr.decode()

    def init(self, roles: str = THREE) -> str:
        done = undertone("init", "--config", self.stores.config, "--roles", roles, cwd=self.folder, env=self.settings())
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def start(self, roles: str, **env: str) -> Running:
        return Running("--config", self.stores.config, "--roles", roles, cwd=self.folder, env=self.settings(**env))

    def await_shown(self, running: Running, sink: str, posts: list) -> None:
        should = wanted(posts)
        running.await_that(lambda: shows(self.stores, sink) == should, f"show {len(should)} posts in {sink}", 90)


def shows(stores: Stores, sink: str) -> object:
    """What a store shows; nothing while it has nothing to be asked."""
    try:
        return stores.shown(sink)
    except (AssertionError, grpc.RpcError):
        return None


@pytest.fixture
def world(kafka: Kafka, clickhouse: ClickHouse, opensearch: OpenSearch, qdrant: Qdrant, tmp_path: Path) -> World:
    return World(kafka, Stores(tmp_path, clickhouse, opensearch, qdrant), tmp_path)


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
    assert counted == [{"posts": len(wanted(posts)), "mean": 0.5}]
