"""The stores of the latest of every post, and the oracle of their promise.

> Qdrant, OpenSearch and ClickHouse hold the latest version of every post, or a dead letter for that store says why not.

`Stores` gives one test tables, indices and collections of its own in servers that are shared. `violations` reads topics and
stores back, as readers of each store would, and names every way in which the promise is broken.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path

import grpc
from confluent_kafka import Producer

from servers.clickhouse import ClickHouse
from servers.kafka import Kafka
from servers.opensearch import OpenSearch
from servers.qdrant import Qdrant

from .process import MODEL, Running, free_ports, undertone
from .promise import shorten
from .topics import MESSAGES, QUIET, Topics, decode

SINKS = ("qdrant", "opensearch", "clickhouse")
THREE = ",".join(SINKS)
DAY_MS = 86_400_000
# Of a post that belongs to the day after that of the others.
NEXT_DAY = {"created_ms": int(datetime(2026, 5, 2, 12, tzinfo=timezone.utc).timestamp() * 1000)}
SIZE = 384
NAMESPACE = uuid.uuid5(uuid.UUID(int=0), "undertone")

# What of a post every store must show, by uid: its version, its text, and its polarity.
Shown = dict[str, tuple[int, str, "float | None"]]


def figure(polarity: float | None) -> float | None:
    """As exact as every store keeps it: Qdrant's engine may be wrong in the last bit."""
    return None if polarity is None else round(polarity, 12)


class Stores:
    """The three stores of one test, in servers that it may share with others."""

    def __init__(self, folder: Path, clickhouse: ClickHouse, opensearch: OpenSearch, qdrant: Qdrant) -> None:
        self.name = f"t{uuid.uuid4().hex[:8]}"
        self.clickhouse, self.opensearch, self.qdrant = clickhouse, opensearch, qdrant
        self.config = folder / "stores.toml"
        self.write_config()

    def write_config(self, more: Mapping[str, str] | None = None, **urls: str) -> None:
        """What `undertone` is told: `more` for a section, and an address that may be that of something in between."""
        names = {"clickhouse": "table", "opensearch": "index", "qdrant": "collection"}
        own = lambda store, key: f'{key} = "{self.name}"\n' + (more or {}).get(store, "")  # noqa: E731
        sections = [(getattr(self, store).toml(), own(store, key)) for store, key in names.items()]
        text = "\n".join("".join(section) for section in sections)
        for name, url in urls.items():
            text = text.replace(f'"{getattr(self, name).url}"', f'"{url}"')
        # A dead member is missed after a second instead of 45.
        self.config.write_text(f'{text}\n[kafka.client]\n"session.timeout.ms" = 1500\n"heartbeat.interval.ms" = 300\n')

    def secrets(self) -> dict[str, str]:
        return {"CLICKHOUSE_PASSWORD": self.clickhouse.password, "QDRANT_API_KEY": self.qdrant.key}

    @property
    def collection(self) -> str:
        return f"{self.name}-{model_revision()[:12]}"

    def drop(self) -> None:
        """Leaves nothing behind in servers that outlive the tests."""
        if not self.clickhouse.is_ours:
            self.clickhouse.query(f"DROP TABLE IF EXISTS {self.name}")
        if not self.opensearch.is_ours:
            for index in self.opensearch.call("GET", f"/{self.name}-*"):
                self.opensearch.call("DELETE", f"/{index}")
            template = f"undertone-{self.name}"
            if any(each["name"] == template for each in self.opensearch.call("GET", "/_index_template")["index_templates"]):
                self.opensearch.call("DELETE", f"/_index_template/{template}")
        if not self.qdrant.is_ours:
            client = self.qdrant.client()
            for each in client.get_collections().collections:
                if each.name.startswith(f"{self.name}-"):
                    client.delete_collection(each.name)

    def shown(self, sink: str) -> Shown:
        """What readers of a store see, by uid."""
        return getattr(self, f"shown_by_{sink}")()

    def shown_by_clickhouse(self) -> Shown:
        rows = self.clickhouse.query(f"SELECT toString(uid) AS uid, version, text, polarity FROM {self.name} FINAL")
        found = {row["uid"]: (row["version"], row["text"], figure(row["polarity"])) for row in rows}
        assert len(found) == len(rows), "clickhouse shows a post twice"
        return found

    def shown_by_opensearch(self) -> Shown:
        self.opensearch.call("POST", f"/{self.name}-*/_refresh")
        found: Shown = {}
        after: list = []
        while True:
            body = {"size": 5000, "sort": [{"uid": "asc"}], "_source": ["uid", "version", "text", "polarity"]}
            hits = self.opensearch.call("POST", f"/{self.name}/_search", body | ({"search_after": after} if after else {}))["hits"]["hits"]
            for hit in hits:
                source = hit["_source"]
                assert source["uid"] not in found, "opensearch shows a post twice"
                found[source["uid"]] = (source["version"], source["text"], figure(source.get("polarity")))
            if not hits:
                return found
            after = hits[-1]["sort"]

    def shown_by_qdrant(self) -> Shown:
        """Points with a vector: what a search for neighbours can find."""
        found: Shown = {}
        client = self.qdrant.client()
        offset = None
        while True:
            points, offset = client.scroll(self.name, limit=2000, offset=offset, with_payload=["version", "text", "polarity", "deleted"], with_vectors=True)
            for point in points:
                if point.vector:
                    assert not point.payload["deleted"], "a tombstone has a vector"
                    found[str(point.id)] = (point.payload["version"], point.payload["text"], figure(point.payload.get("polarity")))
            if offset is None:
                client.close()
                return found


class World:
    """Topics, stores, and whoever works on them."""

    def __init__(self, kafka: Kafka, stores: Stores, folder: Path) -> None:
        self.topics, self.stores, self.folder = Topics(kafka.brokers), stores, folder
        self.group = self.topics.group
        # What the last run to the end said.
        self.log = ""

    def settings(self, **more: str) -> dict[str, str]:
        # Under the same name a process ends what the last one left open, and need not wait until the broker does.
        ours = {"UNDERTONE_KAFKA__GROUP": self.group, "UNDERTONE_KAFKA__INSTANCE": "one"}
        return self.topics.settings(**ours) | self.stores.secrets() | more

    def command(self, name: str, *args: object, **env: str) -> subprocess.CompletedProcess[bytes]:
        """A command with the configuration of these stores, to its end."""
        return undertone(name, *args, "--config", self.stores.config, cwd=self.folder, env=self.settings(**env), timeout=100)

    def run_once(self, roles: str = THREE, *args: object, **env: str) -> None:
        """Everything that the topics hold by now is stored when it returns."""
        http, grpc = free_ports(2)
        addresses = ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
        done = self.command("run", "--once", "--roles", roles, *addresses, *args, **env)
        self.log = done.stderr.decode()
        assert done.returncode == 0, self.log

    def init(self, roles: str = THREE) -> str:
        done = self.command("init", "--roles", roles)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def start(self, roles: str, **env: str) -> Running:
        return Running("--config", self.stores.config, "--roles", roles, cwd=self.folder, env=self.settings(**env))

    def await_shown(self, running: Running, sink: str, posts: list) -> None:
        should = wanted(posts)
        running.await_that(lambda: shows(self.stores, sink) == should, f"show {len(should)} posts in {sink}", 90)


def begun(running: Running) -> None:
    running.await_that(lambda: "sink goes on" in running.log(), "begin")


def shows(stores: Stores, sink: str) -> Shown | None:
    """What a store shows; nothing while it has nothing to be asked."""
    try:
        return stores.shown(sink)
    except (AssertionError, OSError, grpc.RpcError):
        return None


def model_revision() -> str:
    global _revision
    if not _revision:
        done = undertone("model", "show", MODEL, cwd=Path.cwd())
        _revision = next(line.split()[1] for line in done.stdout.decode().splitlines() if line.startswith("revision"))
    return _revision


_revision = ""


def scored(number: int, version: int = 1, **fields: object):
    """A scored post as it stands on `posts.scored`; its version is that many milliseconds after it was created."""
    created_ms = fields.pop("created_ms", int(datetime(2026, 5, 1, 12, tzinfo=timezone.utc).timestamp() * 1000))
    chance = random.Random(number)
    post = MESSAGES["ScoredPost"](
        uid=str(uuid.uuid5(NAMESPACE, f"test/{number}/{created_ms // DAY_MS}")),
        version=((created_ms + version) << 20) | chance.randrange(1 << 20),
        run="live",
        source="test",
        id=f"p{number}",
        text=f"post {number} in version {version}",
        created_at_us=created_ms * 1000,
        tags=["tea"],
        sentiment="positive",
        polarity=((number * 7 + version * 3) % 21 - 10) / 16,
        confidence=0.7,
        language="eng",
        embedding=[chance.uniform(-1, 1) for _ in range(SIZE)],
        ingested_at_us=created_ms * 1000,
        scored_at_us=created_ms * 1000,
    )
    post.model.name, post.model.revision, post.model.precision = "m", model_revision(), "fp32"
    head = post.heads.add(head="sentiment", label="positive")
    head.probabilities.add(label="positive", value=0.7)
    post.origin.cluster, post.origin.topic, post.origin.offset = "c", "t", number
    for name, value in fields.items():
        if isinstance(value, list):
            del getattr(post, name)[:]
            getattr(post, name).extend(value)
        else:
            setattr(post, name, value)
    return post


def tombstone(number: int, version: int):
    post = scored(number, version, text="", deleted=True, embedding=[])
    del post.heads[:]
    post.ClearField("sentiment")
    post.ClearField("polarity")
    post.ClearField("model")
    return post


def append(topics: Topics, posts: Iterable) -> None:
    """Appends to `posts.scored`, each post to a partition of its own, as scoring would have."""
    # A batch must fit where a record does.
    producer = Producer(QUIET | {"bootstrap.servers": topics.brokers, "enable.idempotence": True, "batch.size": 200_000})
    failed: list[str] = []
    # A broker that has just made the topic may know its name before its partitions.
    while not (partitions := len(producer.list_topics(topics.scored, timeout=30).topics[topics.scored].partitions)):
        time.sleep(0.1)
    for post in posts:
        report = lambda error, _: failed.append(str(error)) if error else None  # noqa: E731
        producer.produce(topics.scored, post.SerializeToString(), partition=int(post.id[1:]) % partitions, on_delivery=report)
        producer.poll(0)
    assert producer.flush(60) == 0
    assert not failed, failed[:3]


def wanted(posts: Iterable, refused: Callable[[object], bool] = lambda post: False) -> Shown:
    """What a store must show of `posts`: of each the latest version that was not refused, unless that is a tombstone."""
    latest: dict[str, object] = {}
    for post in posts:
        if (post.uid not in latest or latest[post.uid].version <= post.version) and not refused(post):
            latest[post.uid] = post
    polarity = lambda post: figure(post.polarity if post.HasField("polarity") else None)  # noqa: E731
    return {uid: (post.version, post.text, polarity(post)) for uid, post in latest.items() if not post.deleted}


def letters(topics: Topics, sink: str) -> Mapping[tuple[str, int], str]:
    """Why a sink refused what, by uid and version; not of those that were written again since then."""
    found = {}
    closed, entries = set(), []
    for record in topics.consume(topics.dead):
        if record.value() is None:
            place = json.loads(dict(record.headers())["undertone-replayed"])
            closed.add((place["partition"], place["offset"]))
            continue
        letter = decode("DeadLetter", record.value())
        if letter.stage == sink:
            entries.append((record.partition(), record.offset(), letter))
    for partition, offset, letter in entries:
        if (partition, offset) not in closed:
            post = decode("ScoredPost", letter.payload)
            found[post.uid, post.version] = letter.reason
    return found


def violations(topics: Topics, stores: Stores, sinks: Iterable[str] = SINKS) -> list[str]:
    """Every way in which topics and stores break the promise, once every sink has read everything."""
    posts = [decode("ScoredPost", record.value()) for record in topics.consume(topics.scored)]
    found = []
    for sink in sinks:
        dead = letters(topics, sink)
        should = wanted(posts, lambda post: (post.uid, post.version) in dead)  # noqa: B023
        shows = stores.shown(sink)
        for what, uids in (
            ("lacks", [uid for uid in should if uid not in shows]),
            ("shows deleted or unknown", [uid for uid in shows if uid not in should]),
            ("shows another version of", [uid for uid in should if uid in shows and shows[uid] != should[uid]]),
        ):
            if uids:
                found.append(f"{sink} {what} {shorten(uids)}")
        if sink == "clickhouse":
            found += chart_violations(stores, should)
    return found


def chart_violations(stores: Stores, should: Shown) -> list[str]:
    """Whether a chart counts every post once, at its latest version."""
    (row,) = stores.clickhouse.query(f"SELECT count() AS posts, sum(polarity) AS sum FROM {stores.name} FINAL")
    total = sum(polarity or 0.0 for _, _, polarity in should.values())
    if row["posts"] != len(should) or abs((row["sum"] or 0.0) - total) > 1e-6:
        return [f"clickhouse counts {row['posts']} posts with a sum of {row['sum']}, there are {len(should)} with {total}"]
    return []


def assert_latest(topics: Topics, stores: Stores, sinks: Iterable[str] = SINKS) -> None:
    found = violations(topics, stores, sinks)
    assert not found, "the promise is broken:\n  " + "\n  ".join(found)
