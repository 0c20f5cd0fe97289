"""`undertone forget`: a tombstone reaches every table, in the embedded stream and on Kafka."""

from __future__ import annotations

import json
from pathlib import Path

from servers.kafka import Kafka
from support.posts import generate
from support.process import Running, free_ports, run_once, undertone
from support.promise import assert_promise
from support.stories import event
from support.tables import Tables
from support.topics import Topics
from support.topics import assert_promise as assert_promise_on_kafka

OFTEN = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "300ms", "UNDERTONE_SINKS__COMMIT_ROWS": "40"}
POST = ("--source", "test", "--id", "p9")


def said(done) -> str:
    return done.stdout.decode() + done.stderr.decode()


def of_post(tables: Tables) -> list[dict]:
    rows = tables.rows("silver.posts", "id", "uid", "version", "deleted", "text", "partition", "offset").to_pylist()
    return sorted((row for row in rows if row["id"] == "p9"), key=lambda row: row["version"])


def test_in_the_embedded_stream_the_next_run_stores_the_tombstone(tmp_path: Path) -> None:
    lines = [*generate(20, seed=91, cwd=tmp_path), event(9), event(9, text="again", edited_at="2026-05-01T13:00:00Z")]
    (tmp_path / "posts.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    data = tmp_path / "data"
    assert run_once(data, "posts.jsonl", cwd=tmp_path, env=OFTEN).returncode == 0
    unknown = undertone("forget", "--source", "test", "--id", "nobody", "--data", data, cwd=tmp_path)
    assert unknown.returncode == 2 and "--created-at" in said(unknown), said(unknown)
    done = undertone("forget", *POST, "--data", data, cwd=tmp_path)
    assert done.returncode == 0 and f"offset {len(lines)}" in said(done) and "erase.py" in said(done), said(done)

    assert run_once(data, "posts.jsonl", cwd=tmp_path, env=OFTEN).returncode == 0
    with Tables(data) as tables:
        tombstone = tables.rows("bronze.posts", "offset", "payload").sort_by("offset")["payload"].to_pylist()[-1]
        assert json.loads(tombstone)["created_at"].startswith("2026-05-01T12:09:30")
        rows = of_post(tables)
        assert [row["deleted"] for row in rows] == [False, False, True] and len({row["uid"] for row in rows}) == 1
    assert_promise(data, [*lines, tombstone])
    with Running("--data", data, cwd=tmp_path, env=OFTEN) as running:
        running.await_ready()
        busy = undertone("forget", *POST, "--data", data, cwd=tmp_path)
        assert busy.returncode == 2 and "stop it first" in said(busy), said(busy)


def test_on_kafka_it_goes_to_the_partition_of_its_post(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka.brokers, partitions=3)
    topics.produce([*generate(30, seed=92, cwd=tmp_path), event(9)], headers=[("trace", b"abc")])
    env, (http, grpc) = topics.settings(**OFTEN), free_ports(2)
    run = ("run", "--once", "--data", tmp_path / "data", "--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
    done = undertone(*run, cwd=tmp_path, env=env)
    assert done.returncode == 0, said(done)
    with Tables(tmp_path / "data") as tables:
        # What a record carries along is in Bronze.
        carried = tables.rows("bronze.posts", "headers", "key").to_pylist()
        assert all(row["headers"] == [{"name": "trace", "value": b"abc"}] for row in carried)
        (before,) = of_post(tables)
    done = undertone("forget", *POST, "--data", tmp_path / "data", cwd=tmp_path, env=env)
    assert done.returncode == 0 and topics.raw in said(done), said(done)
    (sent,) = (line for line in done.stdout.decode().splitlines() if line.startswith("tombstone sent"))
    assert f"partition {before['partition']}, offset" in sent
    record = next(r for r in topics.consume(topics.raw) if b'"deleted":true' in r.value() and b'"p9"' in r.value())
    assert json.loads(record.key()) == ["test", "p9"]
    topics.events[(record.partition(), record.offset())] = record.value()
    assert undertone(*run, cwd=tmp_path, env=env).returncode == 0
    assert_promise_on_kafka(topics, tmp_path / "data")
    with Tables(tmp_path / "data") as tables:
        assert [row["deleted"] for row in of_post(tables)] == [False, True]
