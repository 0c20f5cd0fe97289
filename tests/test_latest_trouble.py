"""Qdrant, OpenSearch and ClickHouse in trouble: replays out of order, stores that are ill or not as they should be.

Runs in `make test-full`.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from qdrant_client.models import Distance, PointStruct, ScalarQuantization, ScalarQuantizationConfig, ScalarType, VectorParams

from support.latest import NEXT_DAY, SINKS, THREE, World, append, assert_latest, letters, scored, shows, tombstone, wanted
from support.process import Running, undertone
from support.proxy import Answer, Proxy, Request
from support.wire import Wire
from test_latest import mixed, world  # noqa: F401
from test_metrics import check as check_metrics

pytestmark = [pytest.mark.timeout(400), pytest.mark.full]


def test_what_is_written_twice_late_or_in_another_order_changes_nothing(world: World) -> None:
    posts = mixed(120)
    append(world.topics, posts)
    world.run_once()
    assert_latest(world.topics, world.stores)
    # All of it again, by a group that begins anew, and then older versions alone.
    world.group += "-again"
    world.run_once()
    append(world.topics, [scored(number, 1, text="late and older") for number in range(0, 120, 4)])
    world.run_once()
    assert_latest(world.topics, world.stores)
    # The same event once more, and another score: every store holds the last.
    last = 1_800_000_000_000_000
    append(world.topics, [scored(number, 5, polarity=0.25, scored_at_us=last) for number in range(0, 120, 4)])
    world.run_once()
    assert_latest(world.topics, world.stores)


def reason(running: Running, sink: str) -> str:
    parts = running.get("/readyz").json()["parts"]
    return next(part.get("reason") or "" for part in parts if part["name"] == sink)


def trouble_waits(world: World, sink: str, arrange: Callable[[], None], mend: Callable[[], None], *words: str) -> None:
    """What is about the store and not about a post: nothing is a dead letter, the sink says why it waits, and goes on."""
    first = [scored(number) for number in range(50)]
    append(world.topics, first)
    with world.start(f"gateway,{sink}") as running:
        running.await_ready()
        world.await_shown(running, sink, first)
        arrange()
        more = [scored(number, 2) for number in range(80)]
        append(world.topics, more)
        running.await_that(lambda: all(word in reason(running, sink) for word in words), f"say {words}", 40)
        said = running.get("/readyz")
        assert said.status_code == 200, "an ill store does not take the gateway down"
        (since,) = [part["since"] for part in said.json()["parts"] if part["name"] == sink]
        age = datetime.now(timezone.utc) - datetime.fromisoformat(since.replace("Z", "+00:00"))
        assert -1 <= age.total_seconds() < 60, since
        mend()
        world.await_shown(running, sink, first + more)
        assert letters(world.topics, sink) == {}


def test_clickhouse_read_only(world: World) -> None:
    clickhouse = world.stores.clickhouse
    if not clickhouse.is_ours:
        pytest.skip("makes the server read-only, which is somebody else's")
    trouble_waits(world, "clickhouse", clickhouse.readonly.touch, clickhouse.readonly.unlink, "readonly", "allow this user to write")


def test_clickhouse_whose_table_was_taken_away(world: World) -> None:
    clickhouse, name = world.stores.clickhouse, world.stores.name
    away = lambda: clickhouse.query(f"RENAME TABLE {name} TO {name}_away")  # noqa: E731
    back = lambda: clickhouse.query(f"RENAME TABLE {name}_away TO {name}")  # noqa: E731
    trouble_waits(world, "clickhouse", away, back, "undertone init")


@pytest.mark.parametrize("setting", ["index.blocks.write", "index.blocks.read_only_allow_delete"])
def test_opensearch_read_only_and_with_the_block_of_a_full_disk(world: World, setting: str) -> None:
    def block(on: bool) -> None:
        world.stores.opensearch.call("PUT", f"/{world.stores.name}-*/_settings", {setting: on or None})

    trouble_waits(world, "opensearch", lambda: block(True), lambda: block(False), "cluster_block_exception", "take the block off")


def test_opensearch_without_its_template_makes_no_index_without_a_mapping(world: World) -> None:
    stores = world.stores
    append(world.topics, [scored(1)])
    world.run_once("opensearch")
    stores.opensearch.call("DELETE", f"/_index_template/undertone-{stores.name}")
    append(world.topics, [scored(2, **NEXT_DAY)])
    with world.start("gateway,opensearch") as running:
        running.await_that(lambda: "undertone init" in reason_or_none(running, "opensearch"), "say what is missing", 60)
        assert letters(world.topics, "opensearch") == {}
        world.init("opensearch")
        world.await_shown(running, "opensearch", [scored(1), scored(2, **NEXT_DAY)])


def test_opensearch_that_lost_everything_while_nothing_was_written_is_noticed(world: World) -> None:
    stores, name = world.stores, world.stores.name
    append(world.topics, [scored(1)])
    with world.start("gateway,opensearch") as running:
        world.await_shown(running, "opensearch", [scored(1)])
        stores.opensearch.call("DELETE", f"/{name}-*")
        stores.opensearch.call("DELETE", f"/_index_template/undertone-{name}")
        append(world.topics, [scored(2)])
        running.await_that(lambda: "undertone init" in reason(running, "opensearch"), "say what is missing", 60)
        assert stores.opensearch.call("GET", f"/{name}-*") == {}, "no index without a mapping"
        world.init("opensearch")
        world.await_shown(running, "opensearch", [scored(2)])
        # One that the alias does not show would take documents that nobody finds.
        hidden = f"{name}-2026.05.02"
        stores.opensearch.call("PUT", f"/{hidden}")
        stores.opensearch.call("POST", "/_aliases", {"actions": [{"remove": {"index": hidden, "alias": name}}]})
        append(world.topics, [scored(3, **NEXT_DAY)])
        running.await_that(lambda: "not shown by the alias" in reason(running, "opensearch"), "say what is hidden", 60)
        check = world.command("check", "--roles", "opensearch").stdout.decode()
        assert f"index {hidden}: alias {name} does not show it" in check, check
        stores.opensearch.call("DELETE", f"/{hidden}")
        world.await_shown(running, "opensearch", [scored(2), scored(3, **NEXT_DAY)])
    assert letters(world.topics, "opensearch") == {}


def test_qdrant_tombstones_find_their_posts_in_every_collection_and_wait_where_there_is_none(world: World) -> None:
    stores, posts = world.stores, [scored(number) for number in range(20)]
    append(world.topics, posts)
    client, other = stores.qdrant.client(), f"{stores.name}-another"
    with world.start("gateway,qdrant") as running:
        running.await_ready()
        world.await_shown(running, "qdrant", posts)
        # Another process has a newer model, and has embedded a post with it since then.
        client.create_collection(other, vectors_config={"text": VectorParams(size=3, distance=Distance.COSINE)})
        version = {"version": posts[0].version, "version_ms": posts[0].version >> 20, "version_hash": posts[0].version & 0xFFFFF}
        client.upsert(other, [PointStruct(id=posts[0].uid, vector={"text": [0.1, 0.2, 0.3]}, payload=version)])
        append(world.topics, [tombstone(0, 5)])
        world.await_shown(running, "qdrant", [*posts, tombstone(0, 5)])
        (point,) = client.retrieve(other, [posts[0].uid], with_vectors=True)
        assert point.payload["deleted"] and not point.vector
        client.delete_collection(other)
        client.delete_collection(stores.collection)
        before = settled(world, "qdrant")
        append(world.topics, [tombstone(1, 5)])
        for _ in range(3):  # also the next times that it looks
            running.await_that(lambda: "undertone init" in reason(running, "qdrant"), "say what is missing", 60)
            time.sleep(1)
        assert settled(world, "qdrant") == before
    client.close()


def test_qdrant_whose_alias_and_collection_are_gone_is_not_made_again_in_silence(world: World) -> None:
    append(world.topics, [scored(number) for number in range(20)])
    world.run_once("qdrant")
    client = world.stores.qdrant.client()
    client.delete_collection(world.stores.collection)
    append(world.topics, [scored(number) for number in range(20, 40)])
    with world.start("gateway,qdrant") as running:
        running.await_that(lambda: "undertone init" in reason_or_none(running, "qdrant"), "say what is missing", 60)
        assert letters(world.topics, "qdrant") == {}
        assert f"made    collection {world.stores.collection}" in world.init("qdrant")
        running.await_that(lambda: len(world.stores.shown("qdrant")) == 20, "go on with what comes", 60)


def reason_or_none(running: Running, sink: str) -> str:
    try:
        return reason(running, sink)
    except (OSError, StopIteration, ValueError):
        return ""


@pytest.mark.parametrize(("sink", "secret", "words"), [("clickhouse", "CLICKHOUSE_PASSWORD", "password"), ("qdrant", "QDRANT_API_KEY", "API key")])
def test_a_wrong_secret_costs_nothing_and_is_not_printed(world: World, sink: str, secret: str, words: str) -> None:
    append(world.topics, [scored(number) for number in range(20)])
    with world.start(f"gateway,{sink}", **{secret: "hunter2"}) as running:
        running.await_that(lambda: words in reason_or_none(running, sink), "say that it may not", 60)
        assert "hunter2" not in running.get("/readyz").text + running.log()
    check = undertone("check", "--config", world.stores.config, "--roles", sink, cwd=world.folder, env=world.settings(**{secret: "hunter2"}))
    assert check.returncode == 2 and words in check.stdout.decode(), check.stdout.decode()
    assert "hunter2" not in (check.stdout + check.stderr).decode()
    assert letters(world.topics, sink) == {}
    world.run_once(sink)
    assert_latest(world.topics, world.stores, [sink])


class Guard:
    """Logs in whoever knows the password, as OpenSearch's security plugin does."""

    def __init__(self, password: str) -> None:
        self.password = password

    def __call__(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        said = {name.lower(): value for name, value in request.headers.items()}.get("authorization", "")
        known = base64.b64encode(f"undertone:{self.password}".encode()).decode()
        return forward(request) if said == f"Basic {known}" else (401, {}, b"Unauthorized")


def test_opensearch_is_logged_in_to_and_waited_for_while_the_password_is_another(world: World) -> None:
    stores, guard, right = world.stores, Guard("secret"), {"OPENSEARCH_PASSWORD": "secret"}
    with Proxy(stores.opensearch.url) as proxy:
        proxy.replace(lambda _: True, guard, times=1_000_000)
        stores.write_config({"opensearch": 'user = "undertone"\n'}, opensearch=proxy.uri)
        check = world.command("check", "--roles", "opensearch", OPENSEARCH_PASSWORD="hunter2")
        assert check.returncode == 2 and b"password" in check.stdout and b"hunter2" not in check.stdout + check.stderr
        first, more = [scored(number) for number in range(20)], [scored(number, 2) for number in range(30)]
        append(world.topics, first)
        with world.start("gateway,opensearch", **right) as running:
            running.await_ready()
            world.await_shown(running, "opensearch", first)
            guard.password = "another"  # it has expired
            append(world.topics, more)
            running.await_that(lambda: "password" in reason(running, "opensearch"), "say that it may not", 60)
            assert "secret" not in running.get("/readyz").text + running.log()
            guard.password = "secret"
            world.await_shown(running, "opensearch", first + more)
    assert letters(world.topics, "opensearch") == {}


def test_a_store_that_rejects_everything_is_not_believed(world: World) -> None:
    append(world.topics, [scored(number) for number in range(10)])
    world.run_once("clickhouse")
    world.stores.clickhouse.query(f"ALTER TABLE {world.stores.name} ADD CONSTRAINT c CHECK source != 'test'")
    append(world.topics, [scored(number, 2) for number in range(60)])
    with world.start("gateway,clickhouse") as running:
        running.await_that(lambda: "too many posts to be believed" in reason_or_none(running, "clickhouse"), "doubt the store", 60)
        assert letters(world.topics, "clickhouse") == {}
        world.stores.clickhouse.query(f"ALTER TABLE {world.stores.name} DROP CONSTRAINT c")
        running.await_that(lambda: len(world.stores.shown("clickhouse")) == 60, "go on", 60)
    assert letters(world.topics, "clickhouse") == {}


@pytest.mark.parametrize("sink", SINKS)
def test_a_store_that_hangs_stops_itself_alone_in_bounded_memory(world: World, sink: str) -> None:
    """More posts wait for it than an epoch may hold; the other stores have them long before it is back."""
    stores = world.stores
    posts = [scored(number, author="a" * 8_000) for number in range(10_000)]
    others = [other for other in SINKS if other != sink]
    append(world.topics, [scored(number) for number in range(20)])
    world.run_once()
    with Wire(getattr(stores, sink).url) as wire:
        stores.write_config(**{sink: wire.url})
        with world.start(f"gateway,{THREE}") as running:
            running.await_ready()
            wire.flows.clear()
            before = resident_mib(running.pid)
            append(world.topics, posts)
            for other in others:
                await_settled(world, running, other, 20 + len(posts))
                assert shows(stores, other) == wanted(posts)
            grown = resident_mib(running.pid) - before
            check_metrics(running.get("/metrics").text, {"stores"})
            assert grown < 400, f"{grown} MiB more while {sink} hangs"
            assert settled(world, sink) == 20
            wire.cut()
            wire.flows.set()
            await_settled(world, running, sink, 20 + len(posts), lambda: score(running))
            assert shows(stores, sink) == wanted(posts)
            assert letters(world.topics, sink) == {}


def settled(world: World, sink: str) -> int:
    return sum(world.topics.committed(sink, world.topics.scored).values())


def score(running: Running) -> None:
    """Whoever waits for a score does not wait for a sink that catches up."""
    began = time.monotonic()
    answer = running.post("/v1/score", json={"texts": ["the espresso here is wonderful"]})
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - began < 3, "a text is scored in milliseconds, also on a machine that does much else"


def await_settled(world: World, running: Running, sink: str, posts: int, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Asks for the position and not for the posts, of which there are many."""

    def is_settled() -> bool:
        meanwhile()
        time.sleep(0.5)
        return settled(world, sink) >= posts

    running.await_that(is_settled, f"settle {posts} posts in {sink}", 150)


def resident_mib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 >> 20


@pytest.mark.parametrize("sink", SINKS)
def test_a_line_that_is_cut_or_slow_or_ends_in_the_middle_of_an_answer_loses_nothing(world: World, sink: str) -> None:
    posts = mixed(60)
    with Wire(getattr(world.stores, sink).url) as wire:
        world.stores.write_config(**{sink: wire.url})
        with world.start(f"gateway,{sink}") as running:
            for number, trouble in enumerate((wire.cut, lambda: wire.halve(40), lambda: setattr(wire, "delay", 0.5), lambda: wire.halve(1))):
                trouble()
                append(world.topics, posts[number::4])
                world.await_shown(running, sink, [each for some in range(number + 1) for each in posts[some::4]])
            assert wire.cuts >= 2
    assert letters(world.topics, sink) == {}


def test_init_makes_what_is_missing_once_and_check_tells_what_differs(world: World) -> None:
    stores = world.stores
    command = ("--config", stores.config, "--roles", THREE)
    made = [f"collection {stores.collection}", f"alias {stores.name}", f"index template undertone-{stores.name}", f"table default.{stores.name}"]
    for word in ("made", "there"):
        said = world.init()
        for what in made:
            assert any(each.startswith(f"{word:<8}{what}") for each in said.splitlines()), said
    stores.clickhouse.query(f"ALTER TABLE {stores.name} DROP COLUMN url")
    more = {"qdrant": 'quantization = "none"\non_disk = false\n', "clickhouse": "retention_days = 5\n", "opensearch": "shards = 2\n"}
    stores.write_config(more)
    done = undertone("check", *command, cwd=world.folder, env=world.settings())
    assert done.returncode == 0, done.stdout.decode()
    for words in ("it has no column url", "its TTL is none", "stay on disk, not in memory", "quantization is scalar, not none", "number_of_shards"):
        assert words in done.stdout.decode(), done.stdout.decode()
    differs = [each for each in world.init().splitlines() if each.startswith("differs") and any(f"({sink})" in each for sink in SINKS)]
    assert len(differs) == 3, differs
    assert "it has no column url" in world.init(), "and nothing is altered"


@pytest.mark.parametrize("sink", ["clickhouse", "qdrant"])
def test_nothing_is_written_where_the_promise_could_not_be_kept(world: World, sink: str) -> None:
    stores, client = world.stores, world.stores.qdrant.client()
    if sink == "clickhouse":
        stores.clickhouse.query(f"CREATE TABLE {stores.name} (uid UUID, day Date32) ENGINE = MergeTree ORDER BY (day, uid)")
    else:
        client.create_collection(stores.collection, vectors_config={"text": VectorParams(size=3, distance=Distance.COSINE)})
    word = {"clickhouse": "its engine is MergeTree", "qdrant": "has 3 numbers, not 384"}[sink]
    check = world.command("check", "--roles", sink)
    assert check.returncode == 2 and word in check.stdout.decode(), check.stdout.decode()
    posts = [scored(number) for number in range(5)]
    append(world.topics, posts)
    with world.start(f"gateway,{sink}") as running:
        running.await_that(lambda: word in reason_or_none(running, sink), "say what is wrong", 60)
        assert settled(world, sink) <= 0
        if sink == "clickhouse":
            stores.clickhouse.query(f"DROP TABLE {stores.name}")
        else:
            client.delete_collection(stores.collection)
        client.close()
        world.await_shown(running, sink, posts)
    assert letters(world.topics, sink) == {}


def test_init_completes_a_collection_without_its_indexes(world: World) -> None:
    client, collection = world.stores.qdrant.client(), world.stores.collection
    scalar = ScalarQuantization(scalar=ScalarQuantizationConfig(type=ScalarType.INT8))
    vector = VectorParams(size=384, distance=Distance.COSINE, on_disk=True, quantization_config=scalar)
    client.create_collection(collection, vectors_config={"text": vector})
    client.close()
    differs = f"collection {collection}: it has no index of source"
    assert differs in world.command("check", "--roles", "qdrant").stdout.decode()
    assert f"there   collection {collection}" in world.init("qdrant")
    said = world.command("check", "--roles", "qdrant").stdout.decode()
    assert collection in said and "index" not in said, said


def test_posts_that_retention_took_stop_a_sink_until_a_person_accepts_it(world: World) -> None:
    first = [scored(number) for number in range(20)]
    append(world.topics, first)
    world.run_once("clickhouse")
    lost, kept = [scored(number) for number in range(20, 30)], [scored(number) for number in range(30, 40)]
    append(world.topics, lost)
    ends = {each.partition(): each.offset() + 1 for each in world.topics.consume(world.topics.scored)}
    append(world.topics, kept)
    places = [TopicPartition(world.topics.scored, partition, end) for partition, end in ends.items()]
    for deleted in world.topics.admin.delete_records(places).values():
        deleted.result(30)
    accept = ("accept-gap", "--sink", "clickhouse")
    with world.start("gateway,clickhouse") as running:
        running.await_that(lambda: "accept-gap" in reason_or_none(running, "clickhouse"), "say what is missing", 60)
        assert running.get("/readyz").status_code == 503
        busy = world.command(*accept, "--yes")
        # A sink that has stopped for good has left its group.
        assert busy.returncode == 0 or b"has a member" in busy.stderr, busy.stderr.decode()
    if busy.returncode != 0:
        told = world.command(*accept)
        assert told.stdout.decode().count("gap       clickhouse") == 2, told.stdout.decode()
        done = world.command(*accept, "--yes")
        assert done.returncode == 0, done.stderr.decode()
    assert world.command(*accept).stdout.startswith(b"no gap")
    world.run_once("clickhouse")
    assert world.stores.shown("clickhouse") == wanted(first + kept)
