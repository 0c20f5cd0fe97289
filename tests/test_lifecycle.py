"""The life of the process: how it drains, whom it refuses, and what it can do without."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from safetensors.torch import load_file, save_file

from support.metrics import samples, total
from support.posts import jsonl, post
from support.process import MODEL, Running, free_ports, undertone
from support.tables import Tables


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_it_drains_when_asked_to_end(tmp_path: Path, by: signal.Signals):
    """Exit status 0, and what was read is stored: the next start has nothing to do twice."""
    env = {"UNDERTONE_GENERATOR__BACKFILL": "0s", "UNDERTONE_SINKS__COMMIT_INTERVAL": "1h"}
    with Running("--data", "data", cwd=tmp_path, env=env) as running:
        running.await_ready()
        running.await_that(lambda: running.overview()["totals"]["scored"] >= 20, "score 20 posts", 30)
        assert running.stop(by) == 0, running.log()
    with Tables(tmp_path / "data") as tables:
        # The commit interval is an hour: only the drain can have committed.
        assert tables.rows("bronze.posts").num_rows >= 20
        assert tables.rows("silver.posts").num_rows >= 15


def test_a_drain_answers_the_calls_that_are_running(tmp_path: Path):
    with Running("--roles", "gateway", cwd=tmp_path) as running, ThreadPoolExecutor(1) as pool:
        running.await_ready()
        body = {"texts": [f"{number} words to keep the worker busy " * 20 for number in range(200)]}
        call = pool.submit(requests.post, f"{running.http}/v1/score", json=body, timeout=60)
        running.await_that(lambda: total(samples(running.get("/metrics").text), "undertone_http_requests_in_flight") > 1, "begin the call")
        assert running.stop(signal.SIGTERM) == 0, running.log()
        response = call.result()
        assert response.status_code == 200
        assert len(response.json()["results"]) == 200


def revised(folder: Path) -> Path:
    """Another revision of the model: the same encoder, with the heads' weights turned round, so that its answers are told apart."""
    folder.mkdir()
    for path in MODEL.iterdir():
        if path.is_file():
            shutil.copy(path, folder / path.name)
    weights = load_file(folder / "model.safetensors")
    turned = {name: -tensor if name.startswith("heads.") else tensor for name, tensor in weights.items()}
    save_file(turned, folder / "model.safetensors")
    return folder


def test_a_model_is_replaced_under_load_and_no_request_fails(tmp_path: Path):
    shutil.copytree(MODEL, tmp_path / "served")
    other = revised(tmp_path / "other")
    with Running("--roles", "gateway", "--model", tmp_path / "served", cwd=tmp_path) as running:
        running.await_ready()
        stop, seen = threading.Event(), []

        def client(number: int) -> None:
            """Asks without a pause, each time something new, so that the repeat cache has no part in it."""
            with requests.Session() as session:
                session.trust_env = False
                while not stop.is_set():
                    body = {"texts": [f"best day ever {number} {len(seen)}", "late again"]}
                    response = session.post(f"{running.http}/v1/score", json=body, timeout=60)
                    results = response.json().get("results", [])
                    answered = response.status_code == 200 and len(results) == 2 and all("sentiment" in each for each in results)
                    seen.append((response.json()["model"]["revision"] if answered else response.text, results))

        def revision() -> str:
            return running.get("/v1/models").json()["models"][0]["revision"]

        with ThreadPoolExecutor(3) as pool:
            clients = [pool.submit(client, number) for number in range(3)]
            try:
                before = revision()
                running.await_that(lambda: len(seen) > 20, "answer 20 requests", 30)
                # The folder is replaced as an operator would: another one under the same name.
                (tmp_path / "served").rename(tmp_path / "old")
                other.rename(tmp_path / "served")
                running.process.send_signal(signal.SIGHUP)
                running.await_that(lambda: revision() != before, "replace the model", 60)
                after, replaced = revision(), len(seen)
                running.await_that(lambda: len(seen) > replaced + 20, "answer 20 more", 30)
            finally:
                stop.set()
            for each in clients:
                each.result()
        assert {each for each, _ in seen} == {before, after}, "an answer that is no score stands here as it came"
        # What is said is said by the revision that is named.
        for each, results in seen:
            probability = results[0]["sentiment"]["probabilities"]["positive"]
            assert (probability > 0.5) == (each == before), (each, probability)
        assert running.stop() == 0, running.log()


def test_a_folder_that_cannot_be_loaded_leaves_the_model_that_serves(tmp_path: Path):
    shutil.copytree(MODEL, tmp_path / "served")
    with Running("--roles", "gateway", "--model", tmp_path / "served", cwd=tmp_path) as running:
        running.await_ready()
        before = running.post("/v1/score", json={"text": "fine"}).json()
        (tmp_path / "served" / "heads.safetensors").write_bytes(b"half")
        running.process.send_signal(signal.SIGHUP)
        running.await_that(lambda: "model not replaced" in running.log(), "refuse the folder", 60)
        assert running.post("/v1/score", json={"text": "fine"}).json() == before
        assert running.get("/readyz").status_code == 200


def test_a_second_process_on_the_same_data_folder_is_refused(server: Running):
    folder = server.log_path.parent / "data"
    http, grpc = free_ports(2)
    addresses = ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
    refused = undertone("run", "--data", folder, *addresses, cwd=folder.parent, timeout=60)
    assert refused.returncode == 2
    message = refused.stderr.decode()
    assert str(folder) in message, message
    assert server.get("/readyz").status_code == 200


def test_a_gateway_alone_needs_no_data_folder(tmp_path: Path):
    with Running("--roles", "gateway", "--data", "data", cwd=tmp_path) as running:
        running.await_ready()
        assert running.post("/v1/score", json={"text": "fine"}).status_code == 200
        assert not (tmp_path / "data").exists()
        assert running.stop() == 0


def test_standard_input_is_a_source_that_stays_open(tmp_path: Path):
    """Posts are scored while the pipe is open; its end ends nothing but the source."""
    with Running("--input", "-", "--data", "data", cwd=tmp_path, stdin=subprocess.PIPE) as running:
        running.await_ready()
        running.process.stdin.write(jsonl(post(n) for n in range(10)))
        running.process.stdin.flush()
        running.await_that(lambda: running.overview()["totals"]["scored"] == 10, "score 10 posts", 30)
        running.process.stdin.write(jsonl(post(n) for n in range(10, 15)))
        running.process.stdin.close()
        running.await_that(lambda: running.overview()["totals"]["scored"] == 15, "score 5 more", 30)
        assert running.stop() == 0
