"""Qdrant, OpenSearch and ClickHouse in trouble: replays out of order, posts that cannot be taken, stores that are ill.

Runs in `make test-full`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.latest import SINKS, Stores, append, assert_latest, letters, scored, wanted
from support.process import Running, undertone
from test_latest import THREE, World, mixed, world  # noqa: F401

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.full,
]


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


def constrain_clickhouse(stores: Stores) -> None:
    stores.clickhouse.query(f"ALTER TABLE {stores.name} ADD CONSTRAINT c CHECK author != 'poison'")


def constrain_opensearch(stores: Stores) -> None:
    # Whoever made this index thought that authors are numbers.
    mapping = {"mappings": {"properties": {"author": {"type": "integer"}}}}
    stores.opensearch.call("PUT", f"/{stores.name}-2026.05.01", mapping)


POISON: dict[str, tuple[Callable[[Stores], None], Callable[[], list], tuple[str, ...]]] = {
    "clickhouse": (constrain_clickhouse, lambda: [scored(900, author="poison")], ("Constraint",)),
    "opensearch": (constrain_opensearch, lambda: [scored(900, author="poison")], ("author",)),
    "qdrant": (
        lambda stores: None,
        lambda: [scored(900, embedding=[0.1, 0.2, 0.3]), scored(901, embedding=[float("nan")] * 384), scored(902, embedding=[])],
        ("3 numbers", "not finite", "no embedding"),
    ),
}


@pytest.mark.parametrize("sink", SINKS)
def test_of_good_and_bad_posts_only_the_bad_are_dead_letters(world: World, sink: str) -> None:
    arrange, bad, words = POISON[sink]
    bad = [*bad(), scored(950, polarity=float("nan")), scored(951, uid="no-uuid")]
    first = [scored(1, author="7")]
    append(world.topics, first)
    world.init(sink)
    arrange(world.stores)
    world.run_once(sink)
    good = [scored(number, author="8") for number in range(2, 300)]
    append(world.topics, good[:150] + bad + good[150:])
    world.run_once(sink)
    dead = letters(world.topics, sink)
    assert set(dead) == {(each.uid, each.version) for each in bad}
    for word in (*words, "polarity", "UUID"):
        assert any(word in reason for reason in dead.values()), (word, dead)
    assert world.stores.shown(sink) == wanted(first + good)


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
        assert running.get("/readyz").status_code == 200, "an ill store does not take the gateway down"
        mend()
        world.await_shown(running, sink, first + more)
        assert letters(world.topics, sink) == {}


def test_clickhouse_read_only(world: World) -> None:
    clickhouse = world.stores.clickhouse
    trouble_waits(world, "clickhouse", clickhouse.readonly.touch, clickhouse.readonly.unlink, "readonly", "allow this user to write")


def test_clickhouse_whose_table_was_taken_away(world: World) -> None:
    clickhouse, name = world.stores.clickhouse, world.stores.name
    away = lambda: clickhouse.query(f"RENAME TABLE {name} TO {name}_away")  # noqa: E731
    back = lambda: clickhouse.query(f"RENAME TABLE {name}_away TO {name}")  # noqa: E731
    trouble_waits(world, "clickhouse", away, back, "undertone init")


def test_opensearch_read_only(world: World) -> None:
    def block(on: bool) -> None:
        world.stores.opensearch.call("PUT", f"/{world.stores.name}-*/_settings", {"index.blocks.write": on})

    trouble_waits(world, "opensearch", lambda: block(True), lambda: block(False), "cluster_block_exception", "take the block off")


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


def test_a_store_that_hangs_stops_itself_alone(world: World) -> None:
    posts = mixed(100)
    append(world.topics, posts)
    world.stores.qdrant.pause()
    try:
        with world.start(f"gateway,{THREE}") as running:
            for sink in ("opensearch", "clickhouse"):
                world.await_shown(running, sink, posts)
            world.stores.qdrant.resume()
            world.await_shown(running, "qdrant", posts)
    finally:
        world.stores.qdrant.resume()




def test_init_makes_what_is_missing_once_and_check_tells_what_differs(world: World) -> None:
    stores = world.stores
    command = ("--config", stores.config, "--roles", THREE)
    made = [f"collection {stores.collection}", f"alias {stores.name}", f"index template undertone-{stores.name}", f"table default.{stores.name}"]
    for word in ("made", "there"):
        said = world.init()
        for what in made:
            assert any(each.startswith(f"{word:<8}{what}") for each in said.splitlines()), said
    stores.clickhouse.query(f"ALTER TABLE {stores.name} DROP COLUMN url")
    done = undertone("check", *command, cwd=world.folder, env=world.settings())
    assert done.returncode == 0, done.stdout.decode()
    assert "it has no column url" in done.stdout.decode()
