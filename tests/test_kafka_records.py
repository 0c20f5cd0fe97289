"""Records and members on a real broker: the largest ones, JSON beside protocol buffers, where a stream begins, partitions
that are added while it runs, and two processes of one name."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from servers.kafka import Kafka
from support.posts import generate, line, post
from support.process import Running, free_ports, undertone
from support.topics import Topics, assert_promise, decode, place_of

OFTEN = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "300ms", "UNDERTONE_SINKS__COMMIT_ROWS": "500"}
SESSION = """
[kafka.client]
"session.timeout.ms" = 1500
"heartbeat.interval.ms" = 300
"topic.metadata.refresh.interval.ms" = 1000
"""


def run_once(topics: Topics, folder: Path, *args: object, **more: str) -> None:
    http, grpc = free_ports(2)
    addresses = ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
    env = topics.settings(**OFTEN, **more)
    done = undertone("run", "--once", "--data", folder / "data", *addresses, *args, cwd=folder, env=env, timeout=110)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.timeout(180)
def test_the_largest_events_have_outcomes_that_their_topics_take(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers)
    names = {f"UNDERTONE_KAFKA__TOPICS__{name}": f"{topics.group}.large.{name.lower()}" for name in ("RAW", "SCORED", "DEAD", "SCORED_JSON")}
    topics.raw, topics.scored, topics.dead, as_json = names.values()
    names |= {"UNDERTONE_KAFKA__TOPICS__PARTITIONS": "2", "UNDERTONE_KAFKA__TOPICS__MAX_EVENT_BYTES": str(1 << 20)}
    made = undertone("init", "--data", tmp_path / "data", cwd=tmp_path, env=topics.settings(**names))
    assert made.returncode == 0 and as_json in made.stdout.decode(), made.stderr.decode()

    large = 990_000
    texts = ["word " * (large // 5), "word " * (large // 10), "#tag " * (large // 10), "☕" * (large // 6), "\x01a" * (large // 14)]
    payloads = [line(post(number, text)) for number, text in enumerate(texts)]
    payloads += [b"x" * large, b"\xff" * large, payloads[0][:-1], line(post(9, tags=["a"] * (large // 5)))]
    assert max(map(len, payloads)) < 1 << 20
    for payload in payloads:
        topics.produce([payload])  # each in a batch of its own: a topic's limit is that of a batch
    run_once(topics, tmp_path, **names)

    scored = {place_of(decode("ScoredPost", record.value()).origin) for record in topics.consume(topics.scored)}
    letters = [decode("DeadLetter", record.value()) for record in topics.consume(topics.dead)]
    dead = {place_of(letter.origin) for letter in letters}
    assert scored | dead == set(topics.events) and not scored & dead and len(letters) == len(dead)
    for letter in letters:
        assert letter.payload == topics.events[place_of(letter.origin)], "there is room for the bytes as they came"
    too_large = [letter for letter in letters if "larger than a record may be" in letter.reason]
    assert {letter.stage for letter in too_large} == {"score"} and too_large
    assert len(scored) >= 3
    assert len(topics.consume(as_json)) == len(scored)


def test_scores_are_written_as_json_too_if_somebody_wants_them_so(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers)
    as_json = f"{topics.group}.json"
    topics.make(as_json, partitions=2)
    topics.produce(generate(120, seed=11, cwd=tmp_path), headers=[("trace", b"abc")])
    run_once(topics, tmp_path, UNDERTONE_KAFKA__TOPICS__SCORED_JSON=as_json)
    assert_promise(topics, tmp_path / "data")
    scored = {place_of(post.origin): post for post in (decode("ScoredPost", r.value()) for r in topics.consume(topics.scored))}
    records = topics.consume(as_json)
    assert len(records) == len(scored)
    for record in records:
        fields = json.loads(record.value())
        place = (fields["origin"]["partition"], fields["origin"]["offset"])
        same = scored.pop(place)
        assert (fields["uid"], fields["version"], fields["text"]) == (same.uid, same.version, same.text)
        assert fields["sentiment"] == (same.sentiment or None) and record.partition() == place[0]
        assert json.loads(record.key()) == [same.source, same.id] and ("trace", b"abc") in record.headers()


def test_a_stream_may_begin_at_a_time(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers)
    topics.produce(generate(30, seed=12, cwd=tmp_path))
    before = set(topics.events)
    time.sleep(1.1)
    start = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
    time.sleep(0.1)
    topics.produce(generate(30, seed=13, cwd=tmp_path))
    run_once(topics, tmp_path, "--roles", "score", UNDERTONE_KAFKA__START=start)
    places = {place_of(decode("ScoredPost", record.value()).origin) for record in topics.consume(topics.scored)}
    places |= {place_of(decode("DeadLetter", record.value()).origin) for record in topics.consume(topics.dead)}
    assert places == topics.events.keys() - before


@pytest.mark.timeout(180)
def test_partitions_that_are_added_while_the_stream_runs_are_read(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers)
    config = tmp_path / "kafka.toml"
    config.write_text(SESSION)
    topics.produce(generate(60, seed=14, cwd=tmp_path))
    command = ("--config", config, "--data", tmp_path / "data")
    with Running(*command, cwd=tmp_path, env=topics.settings(**OFTEN)) as running:
        scored = lambda: sum(topics.committed().values()) >= len(topics.events)  # noqa: E731
        running.await_that(scored, "score what is there")
        topics.grow(topics.raw, 4)
        topics.grow(topics.scored, 4)
        time.sleep(1)
        topics.produce(generate(120, seed=15, cwd=tmp_path))
        assert {partition for partition, _ in topics.events} == {0, 1, 2, 3}
        running.await_that(scored, "score what the new partitions hold")
        stored = lambda: all(part["state"] == "ready" for part in running.get("/readyz").json()["parts"])  # noqa: E731
        running.await_that(stored, "be well")
        assert running.stop() == 0, running.log()
    run_once(topics, tmp_path, "--config", config)
    assert_promise(topics, tmp_path / "data")


@pytest.mark.timeout(180)
def test_a_second_process_of_the_same_instance_puts_the_first_out_with_words(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers)
    config = tmp_path / "kafka.toml"
    config.write_text(SESSION)
    topics.produce(generate(40, seed=16, cwd=tmp_path))
    env = topics.settings(UNDERTONE_KAFKA__INSTANCE="scorer-1")
    scored = lambda: sum(topics.committed().values()) >= len(topics.events)  # noqa: E731
    command = ("--roles", "score", "--config", config)
    with Running(*command, "--data", tmp_path / "a", cwd=tmp_path, env=env) as first:
        first.await_that(scored, "score what is there")
        with Running(*command, "--data", tmp_path / "b", cwd=tmp_path, env=env) as second:
            assert first.wait(60) == 2, first.log()
            assert "put out of its consumer group" in first.log() and "kafka.instance" in first.log()
            topics.produce(generate(40, seed=17, cwd=tmp_path))
            second.await_that(scored, "go on alone")
    places = [place_of(decode("ScoredPost", record.value()).origin) for record in topics.consume(topics.scored)]
    places += [place_of(decode("DeadLetter", record.value()).origin) for record in topics.consume(topics.dead)]
    assert sorted(places) == sorted(topics.events)
