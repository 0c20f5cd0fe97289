"""Streams of texts, with clients of the usual kind: `requests`, which sends everything before it reads, a socket that does
both at once, and gRPC with the code that its users generate."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc
import pytest
import requests

from support.metrics import samples, total
from support.process import ROOT, Running, undertone

LINES = {"content-type": "application/x-ndjson"}
PATH = "/v1/score/stream"
TEXTS = ("what a lovely morning", "this is awful, never again", "the meeting is at noon", "☕ great espresso, as always")


@pytest.fixture(scope="module", autouse=True)
def generated_code(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The messages and the stub, generated from the API's files as its users do it."""
    folder = tmp_path_factory.mktemp("generated")
    out = (f"--python_out={folder}", f"--grpc_python_out={folder}")
    files = ("undertone/v1/records.proto", "undertone/v1/scoring.proto")
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "proto"), *out, *files], check=True, timeout=60)
    sys.path.insert(0, str(folder))


def ndjson(items: Iterable[dict]) -> Iterator[bytes]:
    for each in items:
        yield json.dumps(each).encode() + b"\n"


def results(answer: requests.Response) -> list[dict]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == LINES["content-type"]
    return [json.loads(line) for line in answer.content.splitlines()]


def scored_alone(server: Running, texts: list[str], **wishes) -> dict[str, dict]:
    """What `/v1/score` says of each text."""
    found = {}
    for start in range(0, len(texts), 200):
        part = texts[start : start + 200]
        answer = server.post("/v1/score", json={"texts": part, **wishes}).json()
        found |= dict(zip(part, answer["results"], strict=True))
    return found


def same(one: dict, other: dict) -> bool:
    """Two results of one text: a score may differ in its last digits, since batches are summed in another order."""
    heads = {name for name, value in other.items() if isinstance(value, dict) and "probabilities" in value}
    assert heads
    pairs = [(one[head]["probabilities"], other[head]["probabilities"]) for head in heads]
    near = all(mine.keys() == its.keys() and all(abs(mine[label] - its[label]) < 1e-5 for label in its) for mine, its in pairs)
    return near and all(one[name] == other[name] for name in ("language", "in_domain", "tokens", "truncated", "model"))


class Duplex:
    """A client that sends and reads as it likes."""

    def __init__(self, running: Running, **headers: str) -> None:
        self.connection = http.client.HTTPConnection(running.http.removeprefix("http://"), timeout=30)
        self.connection.putrequest("POST", PATH)
        for name, value in (LINES | headers | {"transfer-encoding": "chunked"}).items():
            self.connection.putheader(name, value)
        self.connection.endheaders()
        self.answer: http.client.HTTPResponse | None = None

    def send(self, *items: dict) -> None:
        data = b"".join(ndjson(items))
        self.connection.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        self.connection.send(b"0\r\n\r\n")

    def line(self) -> dict | None:
        if self.answer is None:
            self.answer = self.connection.getresponse()
            assert self.answer.status == 200
        line = self.answer.readline()
        return json.loads(line) if line else None

    def __enter__(self) -> Duplex:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


# --------------------------------------------------------------------------------------------------------------- NDJSON


def test_five_thousand_lines_keep_their_order_and_score_as_they_do_alone(server: Running):
    texts = [f"{TEXTS[n % 4]} {n % 100}" for n in range(5000)]
    lines = ndjson({"id": number, "text": text} for number, text in enumerate(texts))
    found = results(server.post(f"{PATH}?embedding=true", data=lines, headers=LINES))
    assert [each["id"] for each in found] == list(range(5000))
    alone = scored_alone(server, sorted(set(texts)), embedding=True)
    for text, each in zip(texts, found, strict=True):
        assert same(each, alone[text])
        assert max(abs(mine - its) for mine, its in zip(each["embedding"], alone[text]["embedding"], strict=True)) < 1e-4


def test_an_answer_comes_before_the_next_text_is_sent(server: Running):
    with Duplex(server) as stream:
        for number in range(10):
            stream.send({"id": str(number), "text": f"{TEXTS[number % 4]} duplex"})
            assert stream.line()["id"] == str(number)
        stream.end()
        assert stream.line() is None


def test_what_is_wrong_with_a_line_is_its_own_error(server: Running):
    long = json.dumps({"id": "long", "text": "x" * 5000})
    lines = [
        b'{"id": "a", "text": "so good"}',
        b'{"id": "b", "text": ""}',
        b'{"text": "caf\xe9"}',
        b"\xff\xfe\x00",
        b'{"text": ',
        b"",
        b'["a"]',
        b'{"id": "c"}',
        b'{"id": {}, "text": "a"}',
        b'{"text": "a", "lang": "en"}',
        b"[" * 10_000,
        long.encode(),
        b'{"text": "' + b"x" * 100_000 + b'"}',
        b'{"id": "z", "text": "so bad"}',
    ]
    found = results(server.post(f"{PATH}?heads=sentiment", data=b"\r\n".join(lines), headers=LINES))
    codes = [each["error"]["type"].removeprefix("/problems/") if "error" in each else each["sentiment"]["label"] for each in found]
    assert codes == [
        "positive",
        "empty-text",
        *["invalid-json"] * 3,
        *["invalid-input"] * 4,
        "invalid-input",
        *["text-too-long"] * 2,
        "negative",
    ]
    assert [each.get("id") for each in found] == ["a", "b", *[None] * 8, "long", None, "z"]
    assert all(each["error"]["detail"] for each in found if "error" in each)
    assert "line 7" in found[5]["error"]["detail"], "lines are counted as they were sent"


def resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10


@pytest.mark.parametrize("client", ["requests", pytest.param("curl", marks=pytest.mark.skipif(not shutil.which("curl"), reason="no curl"))])
def test_a_client_that_sends_everything_first_is_served_in_little_memory(server: Running, tmp_path: Path, client: str):
    """Both ways more than sockets hold: such a client and a server that waits for it would stand still for ever."""
    count = 6000
    body = b"".join(json.dumps({"id": n, "text": TEXTS[n % 4]}).encode().ljust(2000) + b"\n" for n in range(count))
    before = resident(server.pid)
    most = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            most.append(resident(server.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        if client == "requests":
            answer = server.post(f"{PATH}?embedding=true", data=body, headers=LINES).content
        else:
            (tmp_path / "texts.jsonl").write_bytes(body)
            # It waits to be asked for a body of this size, for a second at most.
            command = ["curl", "-sS", "--noproxy", "*", "-H", "content-type: application/x-ndjson", "--data-binary", "@texts.jsonl"]
            url = f"{server.http}{PATH}?embedding=true"
            answer = subprocess.run([*command, url], cwd=tmp_path, capture_output=True, check=True, timeout=100).stdout
    finally:
        over.set()
        watcher.join()
    assert [json.loads(line)["id"] for line in answer.splitlines()] == list(range(count))
    assert len(answer) > 20_000_000
    assert max(most) - before < 48 << 20


def test_a_slow_reader_is_not_read_from(server: Running):
    """A reader that takes its time gets every answer; what it has not read waits in no memory of ours."""
    before = resident(server.pid)
    texts = total(samples(server.get("/metrics").text), "undertone_gateway_texts_total", 'face="grpc-stream"')
    stub, messages = grpc_stub(server), generated()
    sent = []

    def endless() -> Iterator[object]:
        for number in range(1_000_000):
            sent.append(number)
            yield messages.ScoreStreamRequest(item={"id": str(number).ljust(200), "text": TEXTS[number % 4]}, embedding=True)

    answers = stub.ScoreStream(endless())
    assert next(answers).result.scores.tokens
    counted = lambda: total(samples(server.get("/metrics").text), "undertone_gateway_texts_total", 'face="grpc-stream"') - texts  # noqa: E731
    deadline = time.monotonic() + 20
    seen = [counted()]
    while time.monotonic() < deadline and (len(seen) < 4 or len(set(seen[-4:])) > 1):
        time.sleep(0.3)
        seen.append(counted())
    assert seen[-1] == seen[-4] < 20_000, seen
    assert resident(server.pid) - before < 48 << 20
    for number in range(1, 3000):
        assert next(answers).result.id.strip() == str(number), "it goes on where it stood"
    answers.cancel()
    server.await_that(lambda: total(samples(server.get("/metrics").text), "undertone_gateway_streams_in_flight") == 0, "forget the stream", 20)


# ----------------------------------------------------------------------------------------------- keys, rates, and the end


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway with a key that may send two texts a second, and a short time for bodies."""
    folder = tmp_path_factory.mktemp("guarded-streams")
    keys, config = {}, '[gateway]\nbody_timeout = "1s"\n'
    for name, rate in (("full", ""), ("slow", "rate = 2\nburst = 2\n")):
        made = undertone("key", "new", name, cwd=folder)
        (keys[name],) = made.stdout.decode().split()
        (digest,) = re.findall(r'sha256 = "([0-9a-f]{64})"', made.stderr.decode())
        config += f'[gateway.keys.{name}]\nsha256 = "{digest}"\n{rate}'
    (folder / "gateway.toml").write_text(config)
    with Running("--roles", "gateway", "--config", "gateway.toml", cwd=folder) as running:
        running.keys = keys
        yield running.await_ready()
        assert "lovely" not in running.log(), "texts are not logged"


def test_a_keys_rate_slows_a_stream_down_and_counts_every_text(guarded: Running):
    refused = guarded.post(PATH, data=b"", headers=LINES)
    assert (refused.status_code, refused.json()["type"]) == (401, "/problems/unauthenticated")
    key = {"x-api-key": guarded.keys["slow"]}
    lines = list(ndjson({"id": n, "text": TEXTS[0]} for n in range(6)))
    began = time.monotonic()
    found = results(guarded.post(PATH, data=b"".join(lines), headers=LINES | key))
    took = time.monotonic() - began
    assert len(found) == 6 and all("sentiment" in each for each in found)
    assert 1.8 < took < 15, took
    # Nothing is left of the burst: the next call is refused, over both doors alike.
    refused = guarded.post(PATH, data=lines[0], headers=LINES | key)
    assert (refused.status_code, refused.json()["type"]) == (429, "/problems/rate-limited")
    with pytest.raises(grpc.RpcError) as status:
        list(grpc_stub(guarded).ScoreStream(iter(()), metadata=tuple(key.items())))
    assert status.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.RpcError) as status:
        list(grpc_stub(guarded).ScoreStream(iter(())))
    assert status.value.code() == grpc.StatusCode.UNAUTHENTICATED
    models = grpc_stub(guarded).ListModels(generated().ListModelsRequest(), metadata=tuple(key.items()))
    assert len(models.models) == 1, "looking costs nothing"


def test_who_sends_nothing_loses_the_stream(guarded: Running):
    with Duplex(guarded, **{"x-api-key": guarded.keys["full"]}) as stream:
        stream.send({"id": 1, "text": TEXTS[0]})
        assert stream.line()["id"] == 1
        began = time.monotonic()
        last = stream.line()
        assert (last["type"], last["status"]) == ("/problems/body-timeout", 408) and last["instance"]
        assert stream.line() is None and 0.8 < time.monotonic() - began < 5
    silence = threading.Event()

    def stands_still() -> Iterator[object]:
        yield generated().ScoreStreamRequest(item={"text": TEXTS[0]})
        silence.wait(20)

    answers = grpc_stub(guarded).ScoreStream(stands_still(), metadata=(("x-api-key", guarded.keys["full"]),))
    assert next(answers).result.scores.tokens
    with pytest.raises(grpc.RpcError) as status:
        next(answers)
    silence.set()
    assert status.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert dict(status.value.trailing_metadata())["problem-code"] == "body-timeout"


def long_texts(count: int) -> list[dict]:
    """Texts that take long, no two of them alike."""
    return [{"id": n, "text": f"text {n} takes its time " * 30} for n in range(count)]


def test_a_caller_that_goes_away_leaves_the_queue(guarded: Running):
    key = {"x-api-key": guarded.keys["full"]}
    metric = lambda *wanted: total(samples(guarded.get("/metrics", headers=key).text), *wanted)  # noqa: E731
    waiting = lambda: metric("undertone_infer_queue_items", 'lane="bulk"')  # noqa: E731
    for door in ("http", "grpc"):
        if door == "http":
            stream = Duplex(guarded, **key)
            stream.send(*long_texts(900))
            assert stream.line()["id"] == 0
        else:
            items = [generated().ScoreStreamRequest(item={"id": str(each["id"]), "text": "again " + each["text"]}) for each in long_texts(900)]
            answers = grpc_stub(guarded).ScoreStream(iter(items), metadata=tuple(key.items()))
            assert next(answers).result.id == "0"
        guarded.await_that(lambda: waiting() > 100, "queue them", 20)
        assert metric("undertone_gateway_streams_in_flight") == 1
        stream.connection.close() if door == "http" else answers.cancel()
        began = time.monotonic()
        guarded.await_that(lambda: waiting() == 0 and metric("undertone_gateway_streams_in_flight") == 0, "forget its texts", 20)
        assert time.monotonic() - began < 5
    assert metric("undertone_gateway_calls_total", 'result="cancelled"', 'lane="bulk"') == 2


def test_a_deadline_ends_a_stream_and_what_was_scored_is_answered(guarded: Running):
    headers = LINES | {"x-api-key": guarded.keys["full"], "x-timeout-ms": "700"}
    began = time.monotonic()
    body = b"".join(ndjson({"id": each["id"], "text": "late " + each["text"]} for each in long_texts(900)))
    *found, last = results(guarded.post(PATH, data=body, headers=headers))
    assert time.monotonic() - began < 5
    assert last["type"] == "/problems/deadline-exceeded"
    assert [each["id"] for each in found] == list(range(len(found))) and len(found) < 900


def test_a_shutdown_answers_what_was_read_and_says_why_it_ends(tmp_path: Path):
    with Running("--roles", "gateway", cwd=tmp_path) as running:
        running.await_ready()
        count = 40
        over_grpc = [generated().ScoreStreamRequest(item={"id": str(each["id"]), "text": each["text"]}) for each in long_texts(count)]
        open_end = threading.Event()

        def held_open() -> Iterator[object]:
            yield from over_grpc
            open_end.wait(30)

        answers = grpc_stub(running).ScoreStream(held_open())
        with Duplex(running) as stream:
            stream.send(*long_texts(count))
            assert stream.line()["id"] == 0 and next(answers).result.id == "0"
            running.process.terminate()
            for number in range(1, count):
                assert stream.line()["id"] == number
            assert stream.line()["type"] == "/problems/shutting-down"
            assert stream.line() is None
        ids = []
        with pytest.raises(grpc.RpcError) as status:
            for each in answers:
                ids.append(each.result.id)
        open_end.set()
        assert ids == [str(number) for number in range(1, count)]
        assert status.value.code() == grpc.StatusCode.UNAVAILABLE
        assert dict(status.value.trailing_metadata())["problem-code"] == "shutting-down"
        assert running.wait(20) == 0, running.log()


# ----------------------------------------------------------------------------------------------------------------- gRPC

def generated():
    """The messages of the API."""
    from undertone.v1 import scoring_pb2

    return scoring_pb2


def grpc_stub(running: Running):
    from undertone.v1 import scoring_pb2_grpc

    return scoring_pb2_grpc.ScoringStub(grpc.insecure_channel(running.grpc, options=[("grpc.enable_http_proxy", 0)]))


def test_a_stream_over_grpc_says_what_rest_says(server: Running):
    messages = generated()
    texts = [f"{TEXTS[n % 4]} {n % 100}" for n in range(2000)]
    texts[7], texts[8] = " ", "x" * 5000
    requests_ = (messages.ScoreStreamRequest(item={"id": str(n), "text": text}) for n, text in enumerate(texts))
    found = list(grpc_stub(server).ScoreStream(requests_))
    assert [each.result.id for each in found] == [str(n) for n in range(2000)]
    assert [found[n].result.error.code for n in (7, 8)] == ["empty-text", "text-too-long"]
    alone = scored_alone(server, sorted({text for text in texts if text.strip() and len(text) < 5000}))
    for text, each in zip(texts, found, strict=True):
        if text not in alone:
            continue
        rest = alone[text]
        scores = {head.head: {p.label: p.value for p in head.probabilities} for head in each.result.scores.heads}
        for head, probabilities in scores.items():
            assert probabilities == pytest.approx(rest[head]["probabilities"], abs=1e-5)
        assert each.result.scores.polarity == pytest.approx(rest["polarity"], abs=1e-5)
        assert each.model.revision == rest["model"]["revision"]


def test_embeddings_are_the_same_over_every_door(server: Running):
    items = [{"id": "a", "text": TEXTS[0]}, {"id": "b", "text": " "}, {"id": "c", "text": TEXTS[3]}]
    rest = server.post("/v1/embed", json={"items": items})
    assert rest.status_code == 200
    found = rest.json()["results"]
    assert [each["id"] for each in found] == ["a", "b", "c"]
    assert found[1]["error"]["type"] == "/problems/empty-text"
    alone = server.post("/v1/score", json={"texts": [TEXTS[0], TEXTS[3]], "embedding": True}).json()["results"]
    messages = generated()
    over_grpc = grpc_stub(server).Embed(messages.EmbedRequest(items=items)).results
    assert over_grpc[1].error.code == "empty-text"
    for index, other in ((0, 0), (2, 1)):
        assert found[index]["embedding"] == pytest.approx(alone[other]["embedding"], abs=1e-4)
        assert list(over_grpc[index].embedding.values) == pytest.approx(alone[other]["embedding"], abs=1e-4)
        assert found[index]["tokens"] == over_grpc[index].embedding.tokens == alone[other]["tokens"]
    refused = server.post("/v1/embed", json={"text": ""})
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/empty-text")


def test_models_are_the_same_over_every_door(server: Running):
    (rest,) = server.get("/v1/models").json()["models"]
    messages = generated()
    (model,) = grpc_stub(server).ListModels(messages.ListModelsRequest()).models
    assert grpc_stub(server).GetModel(messages.GetModelRequest(name=rest["name"])) == model
    for name in ("name", "revision", "precision", "device", "kernels", "sentiment_head", "dimensions", "max_tokens", "normalizer", "parameters"):
        assert getattr(model, name) == rest[name], name
    assert list(model.languages) == (rest["languages"] or [])
    assert [(head.name, list(head.labels), head.multi_label) for head in model.heads] == [
        (head["name"], head["labels"], head["multi_label"]) for head in rest["heads"]
    ]
    one = server.get(f"/v1/models/{rest['name']}").json()
    assert one["id"] == rest["name"] and one.items() >= rest.items()
    with pytest.raises(grpc.RpcError) as status:
        grpc_stub(server).GetModel(messages.GetModelRequest(name="gpt-9"))
    assert status.value.code() == grpc.StatusCode.NOT_FOUND


def test_the_snippets_of_the_documentation_do_what_they_say(server: Running, capsys: pytest.CaptureFixture):
    document = (ROOT / "docs" / "gateway.md").read_text()
    snippets = [code for code in re.findall(r"```python\n(.*?)```", document, re.S) if "/v1/score/stream" in code or "ScoreStream" in code]
    assert len(snippets) == 2
    posts = [{"id": f"p{n}", "text": TEXTS[n % 4]} for n in range(40)]
    for code in snippets:
        code = code.replace("http://127.0.0.1:8080", server.http).replace("127.0.0.1:50051", server.grpc)
        exec(compile(code, "snippet", "exec"), {"posts": posts, "json": json, "requests": requests, "grpc": grpc})  # noqa: S102
        printed = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in printed] == [post["id"] for post in posts], printed
