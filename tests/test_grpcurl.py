"""grpcurl, unmodified, which learns everything from the server's reflection."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from support.process import ROOT, Running

sys.path.insert(0, str(ROOT / "scripts"))
from install_servers import GRPCURL  # noqa: E402


def grpcurl(server: Running, *arguments: str, data: object = None, status: int = 0) -> str:
    """What it prints; of messages that it sends there may be several, one after the other."""
    assert GRPCURL.is_file(), f"no grpcurl at {GRPCURL}; `scripts/setup.py test` builds it"
    options = ["-plaintext", "-max-time", "20"]
    options += [] if data is None else ["-d", "@"]
    sent = "\n".join(json.dumps(message) for message in data) if isinstance(data, list) else json.dumps(data)
    # A proxy has nothing to do with 127.0.0.1.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [str(GRPCURL), *options, server.grpc, *arguments],
        input="" if data is None else sent, text=True, capture_output=True, timeout=60, env=environment,
    )  # fmt: skip
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
    return done.stdout if status == 0 else done.stderr


def messages(printed: str) -> list[dict]:
    found, at, decoder = [], 0, json.JSONDecoder()
    while at < len(printed.rstrip()):
        message, at = decoder.raw_decode(printed, at)
        found.append(message)
        at += len(printed[at:]) - len(printed[at:].lstrip())
    return found


def test_services_are_listed_and_described(server: Running) -> None:
    services = grpcurl(server, "list").split()
    assert {"undertone.v1.Scoring", "undertone.v1.Queries", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= set(services)
    methods = grpcurl(server, "describe", "undertone.v1.Scoring")
    for method in ("Score", "ScoreStream", "Embed", "ListModels", "GetModel"):
        assert f"rpc {method} (" in methods, methods
    described = grpcurl(server, "describe", "undertone.v1.ScoreRequest")
    assert "repeated .undertone.v1.ScoreItem items = 1;" in described, described
    assert "optional int64 from_us" in grpcurl(server, "describe", "undertone.v1.SeriesRequest")


def test_a_call_scores_and_a_stream_answers_each_message(server: Running) -> None:
    items = [{"id": "a", "text": "I adore this place"}, {"id": "b", "text": "worst service ever"}, {"id": "c", "text": " "}]
    (answer,) = messages(grpcurl(server, "undertone.v1.Scoring/Score", data={"items": items, "heads": ["sentiment"]}))
    over_rest = server.post("/v1/score", json={"items": items, "heads": ["sentiment"]}).json()["results"]
    assert [result["id"] for result in answer["results"]] == ["a", "b", "c"]
    for result, rest in zip(answer["results"][:2], over_rest, strict=False):
        assert result["scores"]["polarity"] == pytest.approx(rest["polarity"], abs=1e-5)
        assert [head["label"] for head in result["scores"]["heads"]] == [rest["sentiment"]["label"]]
    assert answer["results"][2]["error"]["code"] == "empty-text"

    streamed = messages(grpcurl(server, "undertone.v1.Scoring/ScoreStream", data=[{"item": item} for item in items]))
    assert [each["result"]["id"] for each in streamed] == ["a", "b", "c"]
    for each, whole in zip(streamed[:2], answer["results"], strict=False):
        assert each["result"]["scores"]["polarity"] == pytest.approx(whole["scores"]["polarity"], abs=1e-5)
        assert each["model"]["revision"] == answer["model"]["revision"]
    assert streamed[2]["result"]["error"]["code"] == "empty-text"


def test_queries_health_and_refusals(server: Running) -> None:
    (health,) = messages(grpcurl(server, "grpc.health.v1.Health/Check", data={"service": "undertone.v1.Queries"}))
    assert health == {"status": "SERVING"}
    unknown = grpcurl(server, "grpc.health.v1.Health/Check", data={"service": "made.up"}, status=64 + 5)
    for said in ("NotFound", "google.rpc.ErrorInfo", '"not-found"', "google.rpc.RequestInfo"):
        assert said in unknown, unknown
    (series,) = messages(grpcurl(server, "undertone.v1.Queries/Series", data={"window": "WINDOW_HOUR"}))
    assert (series["store"], series["window"]) == ("tables", "WINDOW_HOUR")
    # grpcurl's own status is 64 and the code of the call's.
    assert "InvalidArgument" in grpcurl(server, "undertone.v1.Scoring/Score", data={"items": []}, status=64 + 3)
    # It reads the details too, since reflection says what they are made of.
    refused = grpcurl(server, "undertone.v1.Queries/Tags", data={"limit": 1001}, status=64 + 3)
    for said in ("google.rpc.ErrorInfo", '"invalid-input"', "google.rpc.RequestInfo", "google.rpc.BadRequest", '"limit"'):
        assert said in refused, refused
    assert "NotFound" in grpcurl(server, "undertone.v1.Queries/Search", data={"q": "tea"}, status=64 + 5)
