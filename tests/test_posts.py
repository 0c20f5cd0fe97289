"""The webhook collector: posts that are sent to the gateway are durable when they are accepted, and end where they belong."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from support.process import Running, undertone
from support.tables import Tables

QUICK = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "1s"}
FROM_CALLERS = ("--input", "http", "--data", "data")


def posts(count: int, label: str) -> list[dict]:
    return [{"id": f"{label}-{n}", "source": "forum", "text": f"what a {label} day, number {n}"} for n in range(count)]


def test_accepted_posts_end_in_the_tables_byte_for_byte_and_others_nowhere(tmp_path: Path):
    with Running(*FROM_CALLERS, cwd=tmp_path, env=QUICK) as running:
        running.await_ready()
        single = '{"id": "one",  "source": "forum", "text": "it rains", "score": 1.10}'
        taken = running.post("/v1/posts", data=single.encode(), headers={"content-type": "application/json"})
        assert taken.status_code == 200, taken.text
        (result,) = taken.json()["results"]
        assert (result["id"], result["source"], result["offset"]) == ("one", "forum", 0)

        mixed = [{"source": "forum", "text": "no id"}, {"source": "forum"}, 5, {"text": "again", "created_at": "yesterday"}]
        taken = running.post("/v1/posts", json=mixed).json()
        assert taken["accepted"] == 1
        assert [result["error"]["type"] for result in taken["results"][1:]] == ["/problems/invalid-input"] * 3
        assert "text" in taken["results"][1]["error"]["detail"]

        lines = "".join(f"{json.dumps(post)}\n" for post in posts(20, "sunny"))
        taken = running.post("/v1/posts", data=lines.encode(), headers={"content-type": "application/x-ndjson"}).json()
        assert (taken["accepted"], len(taken["results"])) == (20, 20)
        # A drain leaves what is not scored yet to the next start.
        running.await_that(lambda: running.overview()["totals"]["scored"] == 22, "score what was accepted")
        assert running.stop() == 0, running.log()
    with Tables(tmp_path / "data") as tables:
        bronze = tables.rows("bronze.posts")
        assert bronze.num_rows == 22
        assert single.encode() in [bytes(payload) for payload in bronze["payload"].to_pylist()]
        assert tables.rows("silver.posts").num_rows == 22


def test_what_was_accepted_survives_a_kill_and_is_scored_by_the_next_start(tmp_path: Path):
    accepted: set[str] = set()
    lock = threading.Lock()
    with Running(*FROM_CALLERS, cwd=tmp_path, env=QUICK) as running:
        running.await_ready()

        def send(batch: int) -> None:
            for round_ in range(200):
                body = posts(3, f"b{batch}r{round_}")
                try:
                    answer = requests.post(f"{running.http}/v1/posts", json=body, timeout=10).json()
                except (requests.RequestException, ValueError):
                    return
                with lock:
                    accepted.update(result["id"] for result in answer["results"] if "id" in result)

        with ThreadPoolExecutor(8) as pool:
            running_calls = [pool.submit(send, batch) for batch in range(8)]
            running.await_that(lambda: len(accepted) > 150, "take posts in")
            running.kill()
            for call in running_calls:
                call.result()
    with Running(*FROM_CALLERS, cwd=tmp_path, env=QUICK) as running:
        running.await_ready()
        running.await_that(lambda: all(lag["posts"] == 0 for lag in running.overview()["lag"]), "score what was accepted", 60)
        assert running.stop() == 0, running.log()
    with Tables(tmp_path / "data") as tables:
        silver = tables.rows("silver.posts")["id"].to_pylist()
    assert accepted <= set(silver), "an accepted post is missing"
    assert len(silver) == len(set(silver)), "a post is there twice, although nobody sent it twice"


def test_a_secret_asks_for_signatures_and_a_mapping_reads_what_is_sent(tmp_path: Path):
    secret = "0123456789abcdef0123456789abcdef"
    (tmp_path / "secret").write_text(f"{secret}\n")
    (tmp_path / "u.toml").write_text("""
        [gateway.posts]
        secret_file = "secret"
        [source.mapping]
        text = "/event/body"
        source = { value = "hook" }
        """)
    with Running(*FROM_CALLERS, "--config", "u.toml", cwd=tmp_path, env=QUICK) as running:
        running.await_ready()
        body = b'{"event": {"body": "a signed remark"}}'
        good = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        for signature, status in ((good, 200), (good[:-1] + "0", 401), ("", 401), (None, 401)):
            headers = {"content-type": "application/json"} | ({"x-hub-signature-256": signature} if signature is not None else {})
            answer = running.post("/v1/posts", data=body, headers=headers)
            if signature == good[:-1] + "0" and good.endswith("0"):
                continue
            assert answer.status_code == status, (signature, answer.text)
        assert running.post("/v1/score", json={"text": "needs no signature"}).status_code == 200
        assert secret not in running.log() and "signed remark" not in running.log()
    for variables, words in (
        ({"UNDERTONE_GATEWAY__POSTS__SECRET": secret}, "gateway.posts.secret_env"),
        ({"UNDERTONE_GATEWAY__POSTS__SECRET_ENV": secret}, "gateway.posts.secret_env"),
        ({"UNDERTONE_GATEWAY__POSTS__SECRET_ENV": "SHORT", "SHORT": "hunter2"}, "too short"),
    ):
        checked = undertone("check", "--roles", "gateway", cwd=tmp_path, env=variables)
        said = checked.stderr.decode()
        assert checked.returncode == 2 and words in said and secret not in said and "hunter2" not in said, said


def test_a_gateway_alone_has_nowhere_to_put_posts(tmp_path: Path):
    with Running("--roles", "gateway", cwd=tmp_path) as running:
        running.await_ready()
        answer = running.post("/v1/posts", json={"text": "hi"})
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/store-not-configured")


@pytest.mark.timeout(300)
def test_into_kafka_a_post_is_accepted_once_every_replica_has_it(tmp_path: Path, kafka):
    from confluent_kafka import Consumer

    topic = f"posts-{tmp_path.name}"
    (tmp_path / "u.toml").write_text(f"""
        [run]
        roles = ["gateway"]
        [kafka]
        brokers = "{kafka.brokers}"
        group = "{tmp_path.name}"
        [kafka.topics]
        raw = "{topic}"
        scored = "{topic}-scored"
        dead = "{topic}-dead"
        partitions = 2
        """)
    made = undertone("init", "--config", "u.toml", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    with Running("--config", "u.toml", cwd=tmp_path) as running:
        running.await_ready()
        sent = posts(30, "kafka")
        taken = running.post("/v1/posts", json=sent).json()
        assert taken["accepted"] == 30, taken
        places = {(result["partition"], result["offset"]): result["id"] for result in taken["results"]}
        assert len(places) == 30
        large = running.post("/v1/posts", json={"id": "large", "text": "x" * 1_040_000})
        assert large.status_code in (200, 413), large.text
    consumer = Consumer({"bootstrap.servers": kafka.brokers, "group.id": "look", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found = {}
    while len(found) < 30:
        (record,) = consumer.consume(1, timeout=30) or [None]
        assert record is not None and not record.error(), f"only {len(found)} records came"
        post = json.loads(record.value())
        if post["id"] == "large":
            continue
        assert json.loads(record.key()) == [post["source"], post["id"]]
        found[(record.partition(), record.offset())] = post["id"]
    consumer.close()
    assert found == places
