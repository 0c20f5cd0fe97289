"""Posts that Qdrant, OpenSearch or ClickHouse cannot take: they alone are dead letters, and are written again after a mend.

Runs in `make test-full`.
"""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable

import pytest
from qdrant_client.models import Distance, VectorParams

from support.latest import NEXT_DAY, SINKS, Stores, World, append, letters, scored, wanted
from support.process import undertone
from support.proxy import Answer, Proxy, Request
from support.rounds import is_write
from test_latest import world  # noqa: F401

pytestmark = [pytest.mark.timeout(400), pytest.mark.full]

# What makes a store refuse a post, which posts those are, what is wrong with them in words, and how the store is mended.
Poison = tuple[Callable[[Stores], None], list, tuple[str, ...], Callable[[Stores], None]]


def clickhouse_poison() -> Poison:
    arrange = lambda stores: stores.clickhouse.query(f"ALTER TABLE {stores.name} ADD CONSTRAINT c CHECK author != 'poison'")  # noqa: E731
    mend = lambda stores: stores.clickhouse.query(f"ALTER TABLE {stores.name} DROP CONSTRAINT c")  # noqa: E731
    return arrange, [scored(900, author="poison"), scored(901, author="poison")], ("Constraint",), mend


def opensearch_poison() -> Poison:
    # Whoever made the next day's index thought that authors are numbers.
    mapping = {"mappings": {"properties": {"author": {"type": "integer"}}}}
    arrange = lambda stores: stores.opensearch.call("PUT", f"/{stores.name}-2026.05.02", mapping)  # noqa: E731
    mend = lambda stores: stores.opensearch.call("DELETE", f"/{stores.name}-2026.05.02")  # noqa: E731
    return arrange, [scored(number, author="poison", **NEXT_DAY) for number in (900, 901)], ("author",), mend


def qdrant_poison() -> Poison:
    def of_another_model(number: int):
        post = scored(number, embedding=[0.1, 0.2, 0.3])
        post.model.revision = "another"
        return post

    # Whoever made the collection of another model was wrong about its size.
    def collection(size: int) -> Callable[[Stores], None]:
        def make(stores: Stores) -> None:
            client, name = stores.qdrant.client(), f"{stores.name}-another"
            client.delete_collection(name)
            client.create_collection(name, vectors_config={"text": VectorParams(size=size, distance=Distance.COSINE)})
            client.close()

        return make

    wrong = [scored(902, embedding=[float("nan")] * 384), scored(903, embedding=[]), scored(904, embedding=[0.5] * 3)]
    posts = [of_another_model(900), of_another_model(901), *wrong]
    return collection(4), posts, ("takes 4", "not finite", "has 0 numbers", "has 3 numbers"), collection(3)


POISON = {"clickhouse": clickhouse_poison, "opensearch": opensearch_poison, "qdrant": qdrant_poison}


def written_again(done: subprocess.CompletedProcess[bytes]) -> tuple[int, int]:
    """How many posts `dead replay` wrote, and how many were refused again."""
    assert done.returncode in (0, 1), done.stderr.decode()
    words = done.stdout.split()
    return int(words[0]), int(words[-3])


@pytest.mark.parametrize("sink", SINKS)
def test_only_bad_posts_are_dead_letters_and_are_written_again_once_the_store_is_mended(world: World, sink: str) -> None:
    arrange, refused, words, mend = POISON[sink]()
    hopeless = [scored(950, polarity=float("nan")), scored(951, uid="no-uuid"), *refused[2:]]
    bad, stores = [*refused[:2], *hopeless], world.stores
    first = [scored(1, author="7")]
    append(world.topics, first)
    world.init(sink)
    arrange(stores)
    world.run_once(sink)
    good = [scored(number, author="8") for number in range(2, 300)]
    append(world.topics, good[:150] + bad + good[150:])
    world.run_once(sink)
    dead = letters(world.topics, sink)
    assert set(dead) == {(each.uid, each.version) for each in bad}
    for word in (*words, "polarity", "UUID"):
        assert any(word in reason for reason in dead.values()), (word, dead)
    assert stores.shown(sink) == wanted(first + good)

    replay = ("dead", "replay", "--sink", sink)
    assert written_again(world.command(*replay)) == (0, len(bad)), "the store is as it was"
    assert len(letters(world.topics, sink)) == len(bad)
    mend(stores)
    # One of them was edited since then, and the edit is in the store.
    newer = scored(901, 9, author="8", **(NEXT_DAY if sink == "opensearch" else {}))
    append(world.topics, [newer])
    world.run_once(sink)
    assert written_again(world.command(*replay, "--dry-run")) == (len(bad), 0)
    killed = world.command(*replay, UNDERTONE_FAILPOINTS="dead.written-again=abort")
    assert killed.returncode < 0, "written, and not yet said to be"
    if sink == "opensearch":
        # As the page asks for it, of a process that writes to the store anyway.
        with world.start(f"gateway,{sink}") as running:
            running.await_ready()
            done = running.post("/v1/dead/replay", json={"sink": sink})
            assert done.json() == {"events": 2, "refused": len(hopeless), "dry_run": False}, done.text
            assert running.log().count("dead letter cannot be replayed") == len(hopeless)
    else:
        assert written_again(world.command(*replay)) == (2, len(hopeless))
    assert written_again(world.command(*replay)) == (0, len(hopeless))
    assert set(letters(world.topics, sink)) == {(each.uid, each.version) for each in hopeless}
    if sink == "qdrant":
        held = stores.qdrant.client().retrieve(f"{stores.name}-another", [each.uid for each in refused[:2]], with_vectors=True)
        assert len(held) == 2 and all(len(point.vector["text"]) == 3 for point in held)
        assert stores.shown(sink) == wanted([*first, *good, newer])
    else:
        assert stores.shown(sink) == wanted([*first, *good, *refused[:2], newer])


def test_a_document_that_is_larger_than_the_server_takes_is_found_among_good_ones(world: World) -> None:
    def limited(request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """As OpenSearch answers beyond http.max_content_length, which counts what is unpacked."""
        return (413, {}, b"") if len(gzip.decompress(request.body)) > 60_000 else forward(request)

    good, large = [scored(number) for number in range(300)], scored(900, text="much " * 20_000)
    with Proxy(world.stores.opensearch.url) as proxy:
        world.stores.write_config(opensearch=proxy.uri)
        proxy.replace(is_write, limited, times=10_000)
        append(world.topics, [*good[:150], large, *good[150:]])
        world.run_once("opensearch")
    dead = letters(world.topics, "opensearch")
    assert set(dead) == {(large.uid, large.version)} and "larger than the server takes" in dead[large.uid, large.version]
    assert world.stores.shown("opensearch") == wanted(good)


def test_an_unknown_store_and_a_stream_without_one_are_told(world: World) -> None:
    unknown = world.command("dead", "replay", "--sink", "silver")
    assert unknown.returncode == 2 and b"qdrant, opensearch or clickhouse" in unknown.stderr
    embedded = undertone("dead", "replay", "--sink", "clickhouse", "--config", world.stores.config, cwd=world.folder, env={**world.stores.secrets(), "UNDERTONE_KAFKA__BROKERS": ""})
    assert embedded.returncode == 2, embedded.stderr.decode()
