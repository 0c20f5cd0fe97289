"""The stream on a real broker: what comes in is scored once and stored once, whoever restarts, joins or dies meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

from servers.kafka import Kafka
from support.posts import generate, with_malformed
from support.process import free_ports, undertone
from support.topics import Topics, assert_promise, decode

OFTEN = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "300ms", "UNDERTONE_SINKS__COMMIT_ROWS": "500"}


def run_once(topics: Topics, data: Path, cwd: Path, *args: object, timeout: float = 110, **more: str):
    """`undertone run --once`: everything that the topics hold by now is scored and stored when it returns."""
    http, grpc = free_ports(2)
    addresses = ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
    env = topics.settings(**OFTEN, **more)
    return undertone("run", "--once", "--data", data, *addresses, *args, cwd=cwd, env=env, timeout=timeout)


def assert_done(done) -> None:
    assert done.returncode == 0, done.stderr.decode()


def test_events_become_rows_and_records_once_each(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers, partitions=3)
    topics.produce(with_malformed(generate(600, seed=1, cwd=tmp_path), every=20, seed=1), headers=[("trace", b"abc")])
    assert_done(run_once(topics, tmp_path / "data", tmp_path))
    assert_promise(topics, tmp_path / "data")
    record = topics.consume(topics.scored)[0]
    assert ("trace", b"abc") in record.headers(), "what a record carries along goes on with its score"
    scored = decode("ScoredPost", record.value())
    assert scored.sentiment in ("negative", "neutral", "positive") and scored.run == "live"

    # Again, with nothing new: nothing changes. Then with more.
    assert_done(run_once(topics, tmp_path / "data", tmp_path))
    topics.produce(generate(200, seed=2, cwd=tmp_path))
    assert_done(run_once(topics, tmp_path / "data", tmp_path))
    assert_promise(topics, tmp_path / "data")


def test_events_of_aborted_transactions_are_not_events_and_markers_are_no_lag(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers)
    topics.produce_and_abort(generate(30, seed=9, cwd=tmp_path))
    topics.produce(generate(50, seed=3, cwd=tmp_path), transactional=True)
    assert_done(run_once(topics, tmp_path / "data", tmp_path))
    assert_promise(topics, tmp_path / "data")
    # The markers of the source's transaction are behind the group too.
    assert sum(topics.committed().values()) > len(topics.events)


def test_a_topic_that_is_missing_is_named_with_the_mend(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers)
    done = run_once(topics, tmp_path / "data", tmp_path, UNDERTONE_KAFKA__TOPICS__DEAD="no.such.topic")
    assert done.returncode == 2
    assert "no.such.topic" in done.stderr.decode() and "undertone init" in done.stderr.decode()


def test_a_broker_that_is_not_there_is_named_with_the_mend(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    env = {"UNDERTONE_KAFKA__BROKERS": f"127.0.0.1:{port}"}
    done = undertone("run", "--once", "--data", tmp_path / "data", "--roles", "score", cwd=tmp_path, env=env, timeout=60)
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr.decode() and "kafka.brokers" in done.stderr.decode()


def test_the_start_is_used_once_and_partitions_that_appear_later_are_read_whole(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers)
    topics.produce(generate(40, seed=4, cwd=tmp_path))
    topics.events.clear()  # before the start: not for us
    latest = {"UNDERTONE_KAFKA__START": "latest"}
    assert_done(run_once(topics, tmp_path / "data", tmp_path, "--roles", "score", **latest))
    assert topics.consume(topics.scored) == []

    topics.produce(generate(40, seed=5, cwd=tmp_path))
    topics.grow(topics.raw, 4)
    time.sleep(1)
    topics.produce(generate(40, seed=6, cwd=tmp_path))
    assert {partition for partition, _ in topics.events} > {0, 1}
    assert_done(run_once(topics, tmp_path / "data", tmp_path, "--roles", "score", **latest))
    places = {(o.partition, o.offset) for o in (decode("ScoredPost", r.value()).origin for r in topics.consume(topics.scored))}
    assert places == set(topics.events)


def test_a_topic_that_was_deleted_and_made_again_stops_the_tables_with_words(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers)
    topics.produce(generate(30, seed=7, cwd=tmp_path))
    assert_done(run_once(topics, tmp_path / "data", tmp_path))
    topics.delete(topics.raw)
    time.sleep(1)
    topics.make(topics.raw, partitions=2)
    topics.produce(generate(30, seed=8, cwd=tmp_path))
    done = run_once(topics, tmp_path / "data", tmp_path, "--roles", "bronze")
    assert done.returncode == 2
    assert "from another topic" in done.stderr.decode() and "made again" in done.stderr.decode()


def test_check_says_what_topics_lack_and_what_could_lose_posts(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers)
    http, grpc = free_ports(2)
    command = ("check", "--data", tmp_path / "data", "--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
    done = undertone(*command, cwd=tmp_path, env=topics.settings())
    out = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode() + out
    assert f"{topics.raw} has 2 partitions, not 6" in out and f"{topics.raw} has one copy" in out
    done = undertone(*command, cwd=tmp_path, env=topics.settings(UNDERTONE_KAFKA__TOPICS__RAW="no.such.topic"))
    assert done.returncode == 2 and "no.such.topic" in done.stdout.decode() and "undertone init" in done.stdout.decode()


def test_a_password_is_never_printed(tmp_path: Path) -> None:
    config = tmp_path / "kafka.toml"
    config.write_text('[kafka]\nbrokers = "127.0.0.1:1"\n[kafka.client]\n"sasl.password" = "hunter2"\n"sasl.mechanism" = "NONE"\n')
    done = undertone("check", "--config", config, "--data", tmp_path / "data", cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert "hunter2" not in done.stdout.decode() + done.stderr.decode()


def test_init_makes_topics_and_tables_once(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers)
    names = {f"UNDERTONE_KAFKA__TOPICS__{name}": f"{topics.group}.new.{name.lower()}" for name in ("RAW", "SCORED", "DEAD")}
    env = topics.settings(**names, UNDERTONE_KAFKA__TOPICS__PARTITIONS="3")
    for word in ("made", "there"):
        done = undertone("init", "--data", tmp_path / "data", cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr.decode()
        lines = done.stdout.decode().splitlines()
        assert [f"{word:<8}topic {name}" for name in names.values()] == lines[:3]
        assert not any(line.startswith("differs") for line in lines), lines
