"""What Kafka no longer holds: whoever needs it stops and says so, and goes on behind it once a person has accepted the loss."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from servers.kafka import Kafka
from support.posts import generate, is_well_formed
from support.process import free_ports, undertone
from support.tables import POSITION, TABLES, Tables
from support.topics import QUIET, Place, Topics, assert_promise, decode, place_of

OFTEN = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "300ms", "UNDERTONE_SINKS__COMMIT_ROWS": "500"}


class World:
    def __init__(self, kafka: Kafka, folder: Path) -> None:
        self.folder, self.data, self.topics, self.seed = folder, folder / "data", Topics(kafka.brokers), 0

    def produce(self, count: int) -> list[Place]:
        """Appends events and returns where they stand."""
        self.seed += 1
        before = set(self.topics.events)
        self.topics.produce(generate(count, seed=self.seed, cwd=self.folder))
        return sorted(self.topics.events.keys() - before)

    def run(self, *args: object) -> tuple[int, str]:
        http, grpc = free_ports(2)
        addresses = ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
        command = ("run", "--once", "--data", self.data, *addresses, *args)
        done = undertone(*command, cwd=self.folder, env=self.topics.settings(**OFTEN), timeout=110)
        return done.returncode, done.stderr.decode()

    def finish(self, *args: object) -> None:
        status, said = self.run(*args)
        assert status == 0, said

    def accept(self, *args: object) -> list[str]:
        done = undertone("accept-gap", "--data", self.data, *args, cwd=self.folder, env=self.topics.settings())
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().splitlines()

    def forget(self, topic: str, partition: int, below: int) -> None:
        """Retention: everything below the offset is gone."""
        for deleted in self.topics.admin.delete_records([TopicPartition(topic, partition, below)]).values():
            deleted.result(30)

    def gap_letters(self) -> list:
        letters = [decode("DeadLetter", record.value()) for record in self.topics.consume(self.topics.dead)]
        return [letter for letter in letters if letter.stage == "gap"]


def good(events: dict[Place, bytes]) -> set[Place]:
    """Where the posts stand that can be scored."""
    return {place for place, payload in events.items() if is_well_formed(payload)}


@pytest.fixture
def world(kafka: Kafka, tmp_path: Path) -> World:
    return World(kafka, tmp_path)


@pytest.mark.timeout(240)
def test_events_that_retention_took_stop_scoring_and_bronze_until_a_person_accepts_it(world: World) -> None:
    world.produce(60)
    world.finish()
    late = [place for place in world.produce(60) if place[0] == 0]
    first, kept = late[0][1], late[10][1]
    world.forget(world.topics.raw, 0, kept)
    for role in ("score", "bronze"):
        status, said = world.run("--roles", role)
        assert status == 2 and "no longer holds" in said and "accept-gap" in said, said

    # It is shown, and nothing is changed.
    before = world.topics.committed()
    lines = world.accept()
    gone = f"{world.topics.raw} partition 0: offsets {first}..{kept} are gone, {kept - first} of them"
    assert [line.split(None, 2) for line in lines[:2]] == [["gap", "score", gone], ["gap", "bronze.posts", gone]], lines
    assert "--yes" in lines[2] and len(lines) == 3
    assert world.topics.committed() == before and not world.gap_letters()
    assert world.run("--roles", "score")[0] == 2

    # Not while somebody scores.
    group = {"group.id": f"{world.topics.group}-score", "enable.auto.commit": False}
    member = Consumer(QUIET | {"bootstrap.servers": world.topics.brokers} | group)
    member.subscribe([world.topics.raw])
    deadline = time.monotonic() + 30
    while not member.assignment():
        assert time.monotonic() < deadline
        member.poll(0.2)
    refused = undertone("accept-gap", "--sink", "score", "--yes", "--data", world.data, cwd=world.folder, env=world.topics.settings())
    member.close()
    assert refused.returncode == 2 and "has a member" in refused.stderr.decode(), refused.stderr.decode()
    assert not world.gap_letters()

    lines = world.accept("--yes")
    assert [line.split()[0] for line in lines[:2]] == ["accepted", "accepted"], lines
    letters = world.gap_letters()
    assert {place_of(letter.origin) for letter in letters} == {(0, first)} and len(letters) == 2
    assert all(f"{first}..{kept}" in letter.reason for letter in letters)
    world.finish()
    for place in [place for place in world.topics.events if place[0] == 0 and first <= place[1] < kept]:
        del world.topics.events[place]
    assert_promise(world.topics, world.data)
    assert world.accept() == ["no gap: Kafka holds everything that is still to be scored or stored"]


@pytest.mark.timeout(240)
def test_scores_that_retention_took_stop_each_table_by_itself(world: World) -> None:
    world.produce(40)
    world.finish()
    world.produce(40)
    world.finish("--roles", "score")
    with Tables(world.data) as tables:
        stored = tables.load("silver.posts").properties
    (first,) = [json.loads(value)["next"] for key, value in stored.items() if key.startswith(POSITION) and key.endswith(".0")]
    records = [record for record in world.topics.consume(world.topics.scored) if record.partition() == 0 and record.offset() >= first]
    kept = records[5].offset()
    lost = {place_of(decode("ScoredPost", record.value()).origin) for record in records[:5]}
    world.forget(world.topics.scored, 0, kept)
    status, said = world.run("--roles", "silver")
    assert status == 2 and "no longer holds" in said, said

    lines = world.accept("--sink", "silver.posts", "--partition", "0", "--yes")
    assert lines[0].split()[:2] == ["accepted", "silver.posts"] and len(lines) == 2, lines
    world.finish("--roles", "silver")
    # The others were not asked about.
    assert world.run("--roles", "gold")[0] == 2
    assert sum(line.startswith("accepted") for line in world.accept("--yes")) == 4
    world.finish()
    with Tables(world.data) as tables:
        rows = tables.rows("silver.posts", "partition", "offset").to_pylist()
        assert sorted((row["partition"], row["offset"]) for row in rows) == sorted(good(world.topics.events) - lost)
    assert len(world.gap_letters()) == 5


@pytest.mark.timeout(240)
def test_a_topic_that_was_made_again_is_read_once_a_person_has_seen_it(world: World) -> None:
    world.produce(40)
    world.finish()
    world.topics.delete(world.topics.raw)
    time.sleep(1)
    world.topics.make(world.topics.raw, partitions=2)
    old = dict(world.topics.events)
    world.topics.events.clear()
    world.produce(70)
    status, said = world.run()
    assert status == 2 and "another topic" in said and "made again" in said and "accept-gap" in said, said
    refused = undertone("accept-gap", "--partition", "0", "--data", world.data, cwd=world.folder, env=world.topics.settings())
    assert refused.returncode == 2 and "all partitions" in refused.stderr.decode()
    lines = world.accept("--yes")
    assert [line.split()[:2] for line in lines[:4]] == [["accepted", "score"]] * 2 + [["accepted", "bronze.posts"]] * 2, lines
    world.finish()

    origins = [decode("ScoredPost", record.value()).origin for record in world.topics.consume(world.topics.scored)]
    by_topic = {origin.topic: [] for origin in origins}
    for origin in origins:
        by_topic[origin.topic].append(place_of(origin))
    assert sorted(map(sorted, by_topic.values())) == sorted([sorted(good(old)), sorted(good(world.topics.events))])
    with Tables(world.data) as tables:
        for name, wanted in (("bronze.posts", set), ("silver.posts", good)):
            rows = tables.rows(name, "topic", "partition", "offset").to_pylist()
            places = sorted((row["partition"], row["offset"]) for row in rows)
            assert places == sorted([*wanted(old), *wanted(world.topics.events)]), name
            assert len({row["topic"] for row in rows}) == 2


@pytest.mark.timeout(240)
def test_a_group_that_forgot_where_it_stood_scores_nothing_twice(world: World) -> None:
    """As after a week without a member: the offsets are gone, the outcomes say how far it was."""
    world.produce(40)
    world.finish()
    # What a scorer leaves that dies in a large transaction: outcomes that are not there, after those that are.
    dying = Producer(QUIET | {"bootstrap.servers": world.topics.brokers, "transactional.id": f"{world.topics.group}-dying"})
    dying.init_transactions(30)
    dying.begin_transaction()
    for number in range(600):
        dying.produce(world.topics.scored if number % 2 else world.topics.dead, b"", partition=(number // 2) % 2)
    assert dying.flush(30) == 0
    dying.abort_transaction(30)
    for done in world.topics.admin.delete_consumer_groups([f"{world.topics.group}-score"]).values():
        done.result(30)
    world.produce(20)
    status, said = world.run("--roles", "score")
    assert status == 2 and "forgotten" in said and "accept-gap" in said, said
    world.accept("--sink", "score", "--yes")
    world.finish()
    assert_promise(world.topics, world.data)


@pytest.mark.timeout(240)
def test_a_group_whose_outcomes_are_gone_too_does_not_begin_anew(world: World) -> None:
    """As after a rest that was longer than all retention: only the topics' ends tell that there was something."""
    world.produce(40)
    world.finish()
    for topic in (world.topics.scored, world.topics.dead):
        for partition in (0, 1):
            world.forget(topic, partition, -1)
    for done in world.topics.admin.delete_consumer_groups([f"{world.topics.group}-score"]).values():
        done.result(30)
    status, said = world.run("--roles", "score")
    assert status == 2 and "forgotten" in said and "gone too" in said and "accept-gap" in said, said
    lines = world.accept("--sink", "score", "--yes")
    assert [line.split()[:2] for line in lines[:-1]] == [["accepted", "score"]] * 2 and "nobody knows" in lines[0], lines
    world.finish("--roles", "score")


@pytest.mark.timeout(240)
def test_what_a_rollback_took_away_is_stored_again_once_a_person_has_accepted_it(world: World) -> None:
    world.produce(60)
    world.finish()
    with Tables(world.data) as tables:
        before = {name: tables.load(name).current_snapshot().snapshot_id for name in TABLES}
    world.produce(60)
    world.finish()
    with Tables(world.data) as tables:
        for name, snapshot in before.items():
            tables.load(name).manage_snapshots().rollback_to_snapshot(snapshot).commit()
    status, said = world.run()
    assert status == 2 and "was rolled back" in said and "accept-gap" in said, said

    lines = world.accept()
    assert {line.split()[0] for line in lines[:-1]} == {"rollback"} and {line.split()[1] for line in lines[:-1]} == set(TABLES), lines
    refused = undertone("accept-gap", "--partition", "0", "--yes", "--data", world.data, cwd=world.folder, env=world.topics.settings())
    assert refused.returncode == 2 and "all partitions or none" in refused.stderr.decode()
    assert not world.gap_letters() and world.run()[0] == 2
    accepted = world.accept("--yes")
    assert len(accepted) == len(lines) and len(world.gap_letters()) == len(lines) - 1
    world.finish()
    assert_promise(world.topics, world.data)
    assert world.accept() == ["no gap: Kafka holds everything that is still to be scored or stored"]


def test_a_sink_that_does_not_exist_is_named(world: World) -> None:
    done = undertone("accept-gap", "--sink", "silver", cwd=world.folder, env=world.topics.settings())
    assert done.returncode == 2 and "silver" in done.stderr.decode()
    done = undertone("accept-gap", cwd=world.folder)
    assert done.returncode == 2 and "kafka.brokers" in done.stderr.decode()
