"""The life of the process: how it drains, whom it refuses, and what it can do without."""

from __future__ import annotations

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from support.metrics import samples, total
from support.posts import jsonl, post
from support.process import Running, free_ports, undertone
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
