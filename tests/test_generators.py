"""Load generators that people use, unmodified, against both doors: ghz over gRPC, Vegeta over REST.

What they count is what the gateway's own metrics count, and whatever finds no room is refused as the documents say.
"""

from __future__ import annotations

import base64
import collections
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.metrics import samples, total
from support.process import ROOT, Running

sys.path.insert(0, str(ROOT / "scripts"))
from install_servers import GHZ, VEGETA  # noqa: E402

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

CONNECTIONS = 16
# A proxy has nothing to do with 127.0.0.1.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway of their own, which remembers no score: the generators send the same texts again and again."""
    folder = tmp_path_factory.mktemp("generators")
    with Running("--roles", "gateway", cwd=folder, env={"UNDERTONE_INFERENCE__CACHE_BYTES": "0"}) as running:
        yield running.await_ready()
        assert running.alive(), running.log()


def counted(gateway: Running, name: str, *labels: str) -> float:
    return total(samples(gateway.get("/metrics").text), name, *labels)


def remark(number: int) -> str:
    return f"order {number} came late, cold and in the wrong box; the courier was kind about it"


# ------------------------------------------------------------------------------------------------------------------ ghz


def ghz(gateway: Running, method: str, data: object, calls: int) -> dict:
    """Its report on so many calls over 16 connections, of which it learns what they are by reflection."""
    assert GHZ.is_file(), f"no ghz at {GHZ}; `UNDERTONE_TEST_FULL=1 scripts/setup.py test` builds it"
    options = ["--insecure", "--call", f"undertone.v1.Scoring/{method}", "--total", str(calls), "--format", "json"]
    options += ["--concurrency", str(CONNECTIONS), "--connections", str(CONNECTIONS), "--data", json.dumps(data)]
    done = subprocess.run([str(GHZ), *options, gateway.grpc], text=True, capture_output=True, timeout=240, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("method, calls", [("Score", 480), ("ScoreStream", 160)])
def test_ghz_over_sixteen_connections_sees_no_error(gateway: Running, method: str, calls: int):
    items = [{"id": str(number), "text": remark(number)} for number in range(4)]
    data = {"items": items[:1]} if method == "Score" else [{"item": item} for item in items]
    ended = ("undertone_grpc_requests_total", f'method="undertone.v1.Scoring/{method}"', 'code="Ok"')
    before = counted(gateway, *ended), counted(gateway, "undertone_gateway_texts_total", 'result="scored"')
    report = ghz(gateway, method, data, calls)
    assert (report["count"], report["statusCodeDistribution"]) == (calls, {"OK": calls}), report["errorDistribution"]
    assert not report["errorDistribution"]
    # Its own calls of the reflection service are none of these.
    assert counted(gateway, *ended) - before[0] == calls
    texts = calls * (1 if method == "Score" else len(items))
    assert counted(gateway, "undertone_gateway_texts_total", 'result="scored"') - before[1] == texts


# --------------------------------------------------------------------------------------------------------------- Vegeta


def vegeta(gateway: Running, bodies: list[object], rate: str, seconds: int) -> list[dict]:
    """What became of each call of an open loop: so many a second, whether or not the earlier ones were answered."""
    assert VEGETA.is_file(), f"no vegeta at {VEGETA}; `UNDERTONE_TEST_FULL=1 scripts/setup.py test` builds it"
    header = {"content-type": ["application/json"]}
    targets = [
        {"method": "POST", "url": f"{gateway.http}/v1/score", "header": header, "body": base64.b64encode(json.dumps(body).encode()).decode()}
        for body in bodies
    ]
    lines = "".join(json.dumps(target) + "\n" for target in targets).encode()
    attack = [str(VEGETA), "attack", "-format=json", f"-rate={rate}", f"-duration={seconds}s", "-timeout=60s"]
    attacked = subprocess.run(attack, input=lines, capture_output=True, timeout=240, env=ENVIRONMENT)
    assert attacked.returncode == 0, attacked.stderr
    encoded = subprocess.run([str(VEGETA), "encode", "-to=json"], input=attacked.stdout, capture_output=True, timeout=60, check=True)
    return [json.loads(line) for line in encoded.stdout.splitlines()]


def answer(result: dict) -> dict:
    return json.loads(base64.b64decode(result["body"]))


def statuses(gateway: Running) -> collections.Counter:
    found = samples(gateway.get("/metrics").text)
    name = "undertone_http_requests_total"
    return collections.Counter({code: int(total(found, name, 'route="/v1/score"', f'status="{code}"')) for code in (200, 429)})


def test_vegeta_scores_single_texts_and_lists_without_an_error(gateway: Running):
    for bodies, rate, seconds, texts in (
        ([{"text": remark(number)} for number in range(50)], "20/s", 10, 1),
        ([{"texts": [remark(number) for number in range(first, first + 50)]} for first in range(0, 200, 50)], "1/s", 10, 50),
    ):
        before = statuses(gateway)
        results = vegeta(gateway, bodies, rate, seconds)
        assert {result["code"] for result in results} == {200}, [result["error"] for result in results if result["error"]][:3]
        assert statuses(gateway) - before == {200: len(results)}
        for result in results:
            assert len(answer(result)["results"]) == texts


def test_overload_by_vegeta_is_refused_with_429_and_when_to_come_again(gateway: Running):
    """Far more texts than any two cores score: the rest is told so at once, and afterwards all is as before."""
    bodies = [{"texts": [remark(number) for number in range(first, first + 32)]} for first in range(0, 640, 32)]
    before = statuses(gateway)
    results = vegeta(gateway, bodies, "300/s", 10)
    codes = collections.Counter(result["code"] for result in results)
    assert set(codes) == {200, 429}, (codes, [result["error"] for result in results if result["code"] not in (200, 429)][:3])
    assert statuses(gateway) - before == codes, "what it counted is what we did"
    for result in results:
        if result["code"] == 200:
            assert len(answer(result)["results"]) == 32
            continue
        headers = {name.lower(): values for name, values in result["headers"].items()}
        assert int(headers["retry-after"][0]) >= 1 and headers["content-type"] == ["application/problem+json"]
        assert answer(result)["type"] == "/problems/queue-full"
    after = gateway.post("/v1/score", json={"text": remark(0)}, timeout=5)
    assert after.status_code == 200, after.text
