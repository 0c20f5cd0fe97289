"""The gateway: REST, health, metrics, and server-sent events."""

from __future__ import annotations

import json
import math
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from support.metrics import samples, total
from support.process import MODEL, Running, undertone

LABELS = ["negative", "neutral", "positive"]
JSON = {"content-type": "application/json"}


# ---------------------------------------------------------------------------------------------------- health and model


def test_it_is_alive_and_ready(server: Running):
    assert server.get("/livez").status_code == 200
    ready = server.get("/readyz")
    assert ready.status_code == 200
    report = ready.json()
    assert report["ready"] is True
    assert {"gateway", "bronze.posts", "silver.posts"} <= {part["name"] for part in report["parts"]}
    assert {part["state"] for part in report["parts"]} <= {"ready", "degraded"}


def test_the_models_that_are_served_are_named(server: Running):
    (model,) = server.get("/v1/models").json()["models"]
    (head,) = [head for head in model["heads"] if head["name"] == "sentiment"]
    assert head["labels"] == LABELS
    assert model["sentiment_head"] == "sentiment"
    assert model["dimensions"] == 384
    assert model["precision"] == "fp32"
    assert model["max_tokens"] >= 128
    shown = undertone("model", "show", MODEL, cwd=Path.cwd())
    assert shown.returncode == 0, shown.stderr
    assert model["revision"] in shown.stdout.decode()


def test_openapi_describes_every_route_and_the_page_shows_it(server: Running):
    document = server.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    described = set(document["paths"])
    assert {"/v1/score", "/v1/score/stream", "/v1/embed", "/v1/models", "/v1/overview", "/v1/live", "/livez", "/readyz", "/metrics"} <= described
    operation = document["paths"]["/v1/score"]["post"]
    assert {"200", "400", "413", "415", "422", "429"} <= set(operation["responses"])
    # Every reference leads somewhere.
    for reference in re.findall(r'"#/([^"]+)"', json.dumps(document)):
        target = document
        for step in reference.split("/"):
            target = target[step]
    docs = server.get("/docs")
    assert docs.status_code == 200
    assert docs.headers["content-type"].startswith("text/html")


# --------------------------------------------------------------------------------------------------------- scoring


def assert_scores(result: dict) -> None:
    """What every scored text owes."""
    sentiment = result["sentiment"]
    probabilities = sentiment["probabilities"]
    assert list(probabilities) == LABELS
    assert all(0 <= p <= 1 for p in probabilities.values())
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert sentiment["label"] == max(probabilities, key=probabilities.get)
    assert result["polarity"] == pytest.approx(probabilities["positive"] - probabilities["negative"], abs=1e-5)
    assert result["confidence"] == pytest.approx(probabilities[sentiment["label"]], abs=1e-5)
    assert result["tokens"] >= 2
    assert set(result["model"]) == {"name", "revision", "precision"}


def test_one_text(server: Running):
    response = server.post("/v1/score", json={"text": "I love this so much, best day ever!"})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    (result,) = body["results"]
    assert_scores(result)
    assert result["sentiment"]["label"] == "positive" and result["polarity"] > 0.5
    assert result["truncated"] is False
    assert body["model"] == result["model"]
    assert "embedding" not in result


def test_many_texts_come_back_in_order_and_score_as_they_do_alone(server: Running):
    texts = ["I hate waiting in the rain", "wonderful wonderful wonderful", "the bus leaves at nine", "x", "😂😂😂"] * 8
    results = server.post("/v1/score", json={"texts": texts}).json()["results"]
    assert len(results) == len(texts)
    for text, result in zip(texts[:5], results[:5], strict=True):
        assert_scores(result)
        alone = server.post("/v1/score", json={"text": text}).json()["results"][0]
        together = result["sentiment"]["probabilities"]
        for label, probability in alone["sentiment"]["probabilities"].items():
            assert together[label] == pytest.approx(probability, abs=1e-5)
    polarities = [result["polarity"] for result in results]
    assert polarities == pytest.approx(polarities[:5] * 8, abs=1e-5)
    assert polarities[0] < -0.3 < 0.3 < polarities[1]


def test_items_keep_their_ids_and_each_has_its_own_result_or_error(server: Running):
    items = [
        {"id": "a", "text": "so good"},
        {"id": 7, "text": ""},
        {"text": "no id here"},
        {"id": "ü" * 100, "text": "x" * 5000},
        {"id": "last", "text": "so bad"},
    ]
    response = server.post("/v1/score", json={"items": items})
    assert response.status_code == 200
    results = response.json()["results"]
    assert [result.get("id") for result in results] == ["a", 7, None, "ü" * 100, "last"]
    for index in (0, 2, 4):
        assert_scores(results[index])
    assert "id" not in results[2]
    for index, code, status in ((1, "empty-text", 422), (3, "text-too-long", 413)):
        error = results[index]["error"]
        assert (error["type"], error["status"]) == (f"/problems/{code}", status)
        assert error["detail"]
        assert "sentiment" not in results[index]


def test_heads_can_be_chosen_and_embeddings_asked_for(server: Running):
    body = {"text": "a quiet evening", "heads": ["sentiment"], "embedding": True}
    (result,) = server.post("/v1/score", json=body).json()["results"]
    assert_scores(result)
    assert len(result["embedding"]) == 384
    assert math.hypot(*result["embedding"]) == pytest.approx(1, abs=1e-4)


def test_a_long_text_is_cut_and_says_so(server: Running):
    (result,) = server.post("/v1/score", json={"text": "very long " * 400}).json()["results"]
    assert result["truncated"] is True
    (model,) = server.get("/v1/models").json()["models"]
    assert result["tokens"] <= model["max_tokens"]


@pytest.mark.parametrize(
    "text", ["\u200b\u200d", "\u0000", "🏳️‍🌈", "ا" * 900, "&nbsp;", "@a @b #c https://x.example", "\ud7ff\ufffd", "a\r\nb\u2028c"]
)
def test_odd_texts_are_scored_or_refused_but_never_a_failure_of_the_server(server: Running, text: str):
    response = server.post("/v1/score", json={"text": text})
    assert response.status_code in (200, 422), response.text
    if response.status_code == 200:
        assert_scores(response.json()["results"][0])


def test_sixty_four_callers_at_once_each_get_their_own_answer(server: Running):
    words = ["great", "terrible", "table", "sunny", "broken", "delicious", "late", "calm"]
    texts = [f"{words[n % 8]} number {n}" for n in range(64)]

    def score(text: str) -> tuple[int, float]:
        response = requests.post(f"{server.http}/v1/score", json={"text": text}, timeout=60)
        return response.status_code, response.json()["results"][0]["polarity"]

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(score, texts))
    assert {status for status, _ in answers} == {200}
    together = server.post("/v1/score", json={"texts": texts}).json()["results"]
    assert [polarity for _, polarity in answers] == pytest.approx([result["polarity"] for result in together], abs=1e-5)


# --------------------------------------------------------------------------------------------------------- problems


PROBLEMS = [
    # method, path, headers, body, status, code
    ("POST", "/v1/score", JSON, b'{"text": ', 400, "invalid-json"),
    ("POST", "/v1/score", JSON, b"", 400, "invalid-json"),
    ("POST", "/v1/score", JSON, b'{"text": "caf\xe9"}', 400, "invalid-json"),
    ("POST", "/v1/score", JSON, b"[]", 422, "invalid-input"),
    ("POST", "/v1/score", JSON, b"{}", 422, "invalid-input"),
    ("POST", "/v1/score", JSON, b'{"text": 5}', 422, "invalid-input"),
    ("POST", "/v1/score", JSON, b'{"txt": "a"}', 422, "invalid-input"),
    ("POST", "/v1/score", JSON, b'{"text": "a", "texts": ["b"]}', 422, "invalid-input"),
    ("POST", "/v1/score", JSON, b'{"texts": ["b"], "items": [{"text": "a"}]}', 422, "invalid-input"),
    ("POST", "/v1/score", JSON, b'{"items": [{"id": {}, "text": "a"}]}', 422, "invalid-input"),
    ("POST", "/v1/score", JSON, b'{"texts": []}', 422, "empty-list"),
    ("POST", "/v1/score", JSON, b'{"items": []}', 422, "empty-list"),
    ("POST", "/v1/score", JSON, b'{"text": " \\n "}', 422, "empty-text"),
    ("POST", "/v1/score", JSON, b'{"text": "a", "heads": ["mood"]}', 422, "unknown-head"),
    ("POST", "/v1/score", JSON, json.dumps({"texts": ["a"] * 201}).encode(), 413, "too-many-texts"),
    ("POST", "/v1/score", JSON, json.dumps({"text": "a" * 4097}).encode(), 413, "text-too-long"),
    ("POST", "/v1/score", JSON, b'{"text": "' + b"a" * 300_000 + b'"}', 413, "body-too-large"),
    ("POST", "/v1/score", {"content-type": "text/plain"}, b'{"text": "a"}', 415, "unsupported-media-type"),
    ("POST", "/v1/score", {}, b'{"text": "a"}', 415, "unsupported-media-type"),
    ("POST", "/v1/score", JSON | {"x-timeout-ms": "soon"}, b'{"text": "a"}', 400, "invalid-header"),
    ("GET", "/v1/score", {}, b"", 405, "method-not-allowed"),
    ("DELETE", "/readyz", {}, b"", 405, "method-not-allowed"),
    ("GET", "/v1/nothing", {}, b"", 404, "unknown-path"),
    ("GET", "/../../etc/passwd", {}, b"", 404, "unknown-path"),
]


@pytest.mark.parametrize(("method", "path", "headers", "body", "status", "code"), PROBLEMS)
def test_what_is_wrong_with_a_call_is_a_problem_of_its_own(server: Running, method, path, headers, body, status, code):
    response = server.session.request(method, server.http + path, headers=headers, data=body, timeout=30)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), response.text
    problem = response.json()
    assert problem["type"] == f"/problems/{code}"
    assert problem["status"] == status
    assert problem["title"] and problem["detail"]
    assert problem["instance"] == response.headers["x-request-id"]
    if status == 405:
        assert response.headers["allow"]


def test_a_problem_points_at_the_field(server: Running):
    problem = server.post("/v1/score", json={"texts": ["fine", 5]}).json()
    assert [error["pointer"] for error in problem["errors"]] == ["/texts/1"]
    problem = server.post("/v1/score", json={"text": "a", "heads": ["sentiment", "mood"]}).json()
    assert [error["pointer"] for error in problem["errors"]] == ["/heads/1"]
    assert "sentiment" in problem["detail"]


def test_a_problem_never_repeats_what_was_sent(server: Running):
    for body in ({"texts": "a very private text"}, {"text": "x", "heads": ["a very private head"]}, {"text": ["private"]}):
        assert "private" not in server.post("/v1/score", json=body).text


def test_the_callers_request_id_comes_back(server: Running):
    response = server.get("/v1/models", headers={"x-request-id": "abc-123"})
    assert response.headers["x-request-id"] == "abc-123"


def test_a_full_server_says_so_and_recovers(tmp_path: Path):
    """A queue that holds next to nothing answers 429 with Retry-After; the callers that fitted are answered."""
    env = {"UNDERTONE_INFERENCE__QUEUE_TOKENS": "600", "UNDERTONE_INFERENCE__WORKERS": "1"}
    with Running("--roles", "gateway", cwd=tmp_path, env=env) as running:
        running.await_ready()
        text = "some words to keep a worker busy " * 30

        def score(_: int) -> requests.Response:
            return requests.post(f"{running.http}/v1/score", json={"text": text}, timeout=60)

        with ThreadPoolExecutor(32) as pool:
            responses = list(pool.map(score, range(96)))
        statuses = {response.status_code for response in responses}
        assert statuses == {200, 429}, statuses
        full = next(response for response in responses if response.status_code == 429)
        assert full.headers["content-type"] == "application/problem+json"
        assert full.json()["type"] == "/problems/queue-full"
        assert int(full.headers["retry-after"]) >= 1
        assert running.post("/v1/score", json={"text": "calm again"}).status_code == 200


# ------------------------------------------------------------------------------------------------ metrics and live view

def test_metrics_parse_and_count_what_happened(server: Running):
    response = server.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    before = samples(response.text)
    server.post("/v1/score", json={"texts": ["a", "b", "c", ""]})
    server.post("/v1/score", data=b"{", headers=JSON)
    after = samples(server.get("/metrics").text)

    def grown(name: str, *labels: str) -> float:
        return total(after, name, *labels) - total(before, name, *labels)

    assert grown("undertone_gateway_texts_total", 'result="scored"') == 3
    assert grown("undertone_gateway_texts_total", 'result="empty-text"') == 1
    assert grown("undertone_http_requests_total", 'route="/v1/score"', 'status="200"') == 1
    assert grown("undertone_http_requests_total", 'route="/v1/score"', 'status="400"') == 1
    assert grown("undertone_http_request_seconds_count", 'route="/v1/score"') == 2
    for sink in ("bronze.posts", "silver.posts"):
        stored = f'"{sink}"'
        server.await_that(
            lambda stored=stored: total(samples(server.get("/metrics").text), "undertone_sink_rows_total", stored) > 0,
            f"store rows of {sink}",
            30,
        )
    assert not [key for key in after if "nothing" in key or "passwd" in key], "callers' paths are no labels"


def test_the_generators_posts_make_the_totals_grow(server: Running):
    first = server.overview()
    server.await_that(lambda: server.overview()["totals"]["scored"] >= first["totals"]["scored"] + 20, "score 20 more", 30)
    now = server.overview()
    totals = now["totals"]
    assert totals["events"] >= totals["scored"] + totals["dead"]
    assert totals["negative"] + totals["neutral"] + totals["positive"] <= totals["scored"]
    assert min(totals["negative"], totals["neutral"], totals["positive"]) > 0
    assert now["rate"]["posts_per_second"] > 0
    assert now["now_ms"] > first["now_ms"] >= first["started_ms"]
    assert abs(now["now_ms"] - time.time() * 1000) < 60_000
    assert {"score", "bronze.posts", "silver.posts"} <= {lag["stage"] for lag in now["lag"]}
    assert all(lag["posts"] >= 0 and (lag["seconds"] is None or lag["seconds"] >= 0) for lag in now["lag"])
    assert now["model"]["precision"] == "fp32"


def test_the_overview_holds_what_the_page_draws(server: Running):
    overview = server.overview()
    latest = overview["latest"]
    assert 0 < len(latest) <= 30
    for each in latest:
        assert each["label"] in LABELS and -1 <= each["polarity"] <= 1 and 0 <= each["confidence"] <= 1
        assert each["text"] and each["uid"] and each["source"] in ("reddit", "x", "webhook", "forum")
    topics = overview["topics"]
    assert topics["bucket_seconds"] == 60 and 0 < len(topics["series"]) <= 12
    for series in topics["series"]:
        assert len(series["count"]) == len(series["polarity"]) == topics["buckets"]
        for count, polarity in zip(series["count"], series["polarity"], strict=True):
            assert (polarity is None) == (count == 0)
            assert polarity is None or -1 <= polarity <= 1
    counts = [sum(series["count"]) for series in topics["series"]]
    assert counts == sorted(counts, reverse=True)
    assert overview["dead"]["total"] == overview["totals"]["dead"]
    for letter in overview["dead"]["latest"]:
        assert letter["stage"] == "parse" and letter["reason"] and len(letter["preview"]) <= 120


def test_new_posts_come_before_the_ones_that_were_there(server: Running):
    before = {each["uid"]: each["text"] for each in server.overview()["latest"]}
    server.await_that(lambda: server.overview()["latest"][0]["uid"] not in before, "show another post", 20)
    latest = server.overview()["latest"]
    # An edit is a new post, too: it takes the place of its earlier version.
    old = [before.get(each["uid"]) == each["text"] for each in latest]
    assert old == sorted(old), "an old post stands before a new one"
    kept = [each["uid"] for each, is_old in zip(latest, old, strict=True) if is_old]
    assert kept == [uid for uid in before if uid in kept]


def test_server_sent_events_carry_overviews(server: Running):
    with requests.get(f"{server.http}/v1/live", stream=True, timeout=15) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        overviews, event = [], None
        began = time.monotonic()
        for each in response.iter_lines(chunk_size=1, decode_unicode=True):
            if each.startswith("event:"):
                event = each.removeprefix("event:").strip()
            elif each.startswith("data:") and event == "overview":
                overviews.append(json.loads(each.removeprefix("data:")))
            if len(overviews) == 3:
                break
    assert set(overviews[0]) == set(server.overview())
    assert [o["now_ms"] for o in overviews] == sorted({o["now_ms"] for o in overviews})
    assert time.monotonic() - began < 10
