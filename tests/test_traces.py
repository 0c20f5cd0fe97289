"""Traces, as an OTLP collector sees them: calls go on with the caller's trace, through the core and through Kafka."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from servers.kafka import Kafka
from support.collector import Collector
from support.metrics import samples, total
from support.process import Running, free_ports, undertone
from support.topics import Topics

SECRET_TEXT = "the marmalade was unforgettable"


def traced(to: str, **more: str) -> dict[str, str]:
    return {"UNDERTONE_TELEMETRY__OTLP": to} | more


def parent(sampled: bool = True) -> tuple[str, str, str]:
    """A trace of the caller's, the caller's span, and the header that says so."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-0{int(sampled)}"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def gateway(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway that traces what its callers trace, and nothing else."""
    folder = tmp_path_factory.mktemp("traces")
    env = traced(collector.address, UNDERTONE_TELEMETRY__SAMPLE="0")
    with Running("--roles", "gateway", cwd=folder, env=env) as running:
        yield running.await_ready()


def test_a_call_goes_on_with_its_callers_trace_down_to_the_core(gateway: Running, collector: Collector):
    trace, caller, header = parent()
    began = time.time()
    texts = [SECRET_TEXT, "it opens at noon"]
    answer = gateway.post("/v1/score", json={"texts": texts}, headers={"traceparent": header, "tracestate": "vendor=x"})
    assert answer.status_code == 200, answer.text
    call, score = sorted(collector.await_spans(lambda span: span.trace == trace, 2), key=lambda span: span.kind, reverse=True)
    assert (call.name, call.kind, call.parent, call.service) == ("POST /v1/score", "server", caller, "undertone")
    assert call.attributes["http.response.status_code"] == 200 and call.attributes["http.route"] == "/v1/score"
    assert (score.name, score.kind, score.parent) == ("score", "internal", call.id)
    assert began - 1 <= call.began <= score.began <= score.ended <= call.ended <= time.time() + 1
    facts = score.attributes
    assert (facts["undertone.lane"], facts["undertone.texts"]) == ("interactive", 2)
    stages = facts["undertone.queue_ms"] + facts["undertone.forward_ms"]
    assert facts["undertone.forward_ms"] > 0 and stages <= (score.ended - score.began) * 1e3 + 1
    assert not call.failed and f"trace_id={trace}" in gateway.log().replace('"', "")
    # Known from before: no forward pass.
    trace, _, header = parent()
    gateway.post("/v1/score", json={"text": SECRET_TEXT}, headers={"traceparent": header})
    (again,) = collector.await_spans(lambda span: span.trace == trace and span.name == "score")
    assert again.attributes["undertone.forward_ms"] == 0


def test_a_call_of_grpc_does_too(gateway: Running, collector: Collector):
    with grpc.insecure_channel(gateway.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        request = GetMessageClass(pool.FindMessageTypeByName("undertone.v1.ScoreRequest"))()
        request.items.add(text=SECRET_TEXT)
        call = channel.unary_unary("/undertone.v1.Scoring/Score", lambda message: message.SerializeToString(), lambda raw: raw)
        trace, caller, header = parent()
        call(request, timeout=20, metadata=(("traceparent", header),))
        failing, _, header = parent()
        request.heads.append("mood")
        with pytest.raises(grpc.RpcError):
            call(request, timeout=20, metadata=(("traceparent", header),))
    called, score = sorted(collector.await_spans(lambda span: span.trace == trace, 2), key=lambda span: span.kind, reverse=True)
    assert (called.name, called.kind, called.parent) == ("undertone.v1.Scoring/Score", "server", caller)
    assert called.attributes["rpc.system"] == "grpc" and called.attributes["rpc.grpc.status_code"] == 0
    assert (score.name, score.parent) == ("score", called.id)
    (refused,) = collector.await_spans(lambda span: span.trace == failing)
    assert refused.attributes["rpc.grpc.status_code"] == 3 and not refused.failed, "the caller's mistake is no failure of ours"


def test_streams_and_arrow_tell_what_the_core_took(gateway: Running, collector: Collector):
    """One part tells of the whole call, however many texts it has."""
    trace, _, header = parent()
    lines = "".join(f'{{"text": "{text}"}}\n' for text in (SECRET_TEXT, "it opens at noon", ""))
    headers = {"traceparent": header, "content-type": "application/x-ndjson"}
    answer = gateway.post("/v1/score/stream", data=lines.encode(), headers=headers)
    assert answer.status_code == 200 and len(answer.text.splitlines()) == 3, answer.text
    assert told_of_texts(collector, trace) == ("bulk", 3, 1)

    trace, _, header = parent()
    sink = pa.BufferOutputStream()
    table = pa.table({"text": [f"{SECRET_TEXT} {n}" for n in range(300)]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    headers = {"traceparent": header, "content-type": "application/vnd.apache.arrow.stream"}
    assert gateway.post("/v1/score/arrow", data=sink.getvalue().to_pybytes(), headers=headers).status_code == 200
    assert told_of_texts(collector, trace) == ("bulk", 300, 0)


def told_of_texts(collector: Collector, trace: str) -> tuple[str, int, int]:
    """The lane, the texts and the problems of a call with texts without end, from its only part."""
    call, part = sorted(collector.await_spans(lambda span: span.trace == trace, 2), key=lambda span: span.kind, reverse=True)
    assert (call.kind, part.name, part.kind, part.parent) == ("server", "score texts", "internal", call.id)
    facts = part.attributes
    return facts["undertone.lane"], facts["undertone.texts"], facts["undertone.problems"]


def test_nobody_else_is_traced_and_no_text_leaves_the_process(gateway: Running, collector: Collector):
    before = {span.trace for span in collector.spans()}
    unsampled, _, header = parent(sampled=False)
    for headers in ({}, {"traceparent": header}, {"traceparent": "00-nonsense"}, {"traceparent": "x" * 5000}):
        assert gateway.post("/v1/score", json={"text": SECRET_TEXT}, headers=headers).status_code == 200
    mistake, _, header = parent()
    assert gateway.post("/v1/score", json={"text": SECRET_TEXT, "heads": [SECRET_TEXT]}, headers={"traceparent": header}).status_code == 422
    (span,) = collector.await_spans(lambda span: span.trace == mistake)
    assert span.attributes["http.response.status_code"] == 422 and not span.failed
    assert {span.trace for span in collector.spans()} == before | {mistake}
    assert collector.raw and not any(b"marmalade" in raw for raw in collector.raw)

    def counted(*labels: str) -> float:
        return total(samples(gateway.get("/metrics").text), "undertone_trace_spans_total", *labels)

    gateway.await_that(lambda: counted('outcome="delivered"') == len(collector.spans()), "count what it delivered")
    assert counted() == len(collector.spans()), "nothing was lost"


@pytest.mark.timeout(180)
def test_a_trace_goes_through_kafka_to_the_score(kafka: Kafka, tmp_path: Path):
    topics = Topics(kafka.brokers, partitions=2)
    trace, caller, header = parent()
    own = secrets.token_hex(16)
    # Another's collector carries a trace of its own, or none.
    topics.produce([b'{"id": "1", "source": "s", "text": "theirs"}'], headers=[("traceparent", f"00-{own}-{'a' * 16}-01".encode())])
    topics.produce([b'{"id": "2", "source": "s", "text": "nobody"}'])
    topics.produce([b'{"id": "3", "source": "s", "text": "unsampled"}'], headers=[("traceparent", parent(sampled=False)[2].encode())])
    with Collector() as collector:
        env = topics.settings() | traced(collector.address, UNDERTONE_TELEMETRY__SAMPLE="0")
        with Running("--roles", "gateway,score", cwd=tmp_path, env=env) as running:
            running.await_ready()
            posts = [{"id": f"p{n}", "source": "forum", "text": f"{SECRET_TEXT} {n}"} for n in range(3)]
            taken = running.post("/v1/posts", json=posts, headers={"traceparent": header})
            assert taken.json()["accepted"] == 3, taken.text
            running.post("/v1/posts", json={"id": "untraced", "source": "forum", "text": "plain"})
            (call,) = collector.await_spans(lambda span: span.trace == trace and span.kind == "server")
            assert (call.name, call.parent) == ("POST /v1/posts", caller)

            def scored() -> int:
                return sum(span.attributes["messaging.batch.message_count"] for span in collector.spans() if span.kind == "consumer" and span.trace == trace)

            running.await_that(lambda: scored() == 3, "tell of three scores")
            for span in (span for span in collector.spans() if span.kind == "consumer"):
                assert (span.name, span.trace in (trace, own)) == ("score posts", True)
                assert span.parent == (call.id if span.trace == trace else "a" * 16)
                assert span.began <= span.ended and span.attributes["undertone.dead_letters"] == 0
            collector.await_spans(lambda span: span.trace == own and span.kind == "consumer")
            assert running.stop() == 0, running.log()
        assert not any(b"marmalade" in raw for raw in collector.raw)
    carried = f"00-{trace}-{call.id}-01".encode()
    for topic in (topics.raw, topics.scored):
        headers = [dict(record.headers() or []).get("traceparent") for record in topics.consume(topic)]
        assert headers.count(carried) == 3 and headers.count(None) == 2, (topic, headers)


def test_a_collector_that_is_gone_costs_nothing_but_its_spans(tmp_path: Path):
    (port,) = free_ports(1)
    env = traced(f"http://127.0.0.1:{port}")
    took = []
    with Running("--roles", "gateway", cwd=tmp_path, env=env) as running:
        running.await_ready()
        for number in range(300):
            began = time.monotonic()
            assert running.get("/v1/models").status_code == 200
            took.append(time.monotonic() - began)
            if number % 100 == 0:
                assert running.post("/v1/score", json={"text": "so good"}).status_code == 200
        running.await_that(lambda: "spans cannot be delivered" in running.log(), "tell of it")
        found = samples(running.get("/metrics").text)
        assert total(found, "undertone_trace_spans_total", 'outcome="failed"') > 0
        assert total(found, "undertone_trace_spans_total", 'outcome="delivered"') == 0
        began = time.monotonic()
        assert running.stop() == 0, running.log()
        assert time.monotonic() - began < 10
        assert running.log().count("spans cannot be delivered") == 1
    # Half of the calls; what else runs on the machine may hold up the others.
    assert sorted(took)[len(took) // 2] < 0.05


def test_check_says_where_spans_go_and_shows_no_password(tmp_path: Path):
    (port,) = free_ports(1)
    http, grpc_port = free_ports(2)
    flags = ("--roles", "gateway", "--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc_port}")
    env = traced(f"http://127.0.0.1:{port}", UNDERTONE_TELEMETRY__SAMPLE="0.25", OTEL_EXPORTER_OTLP_HEADERS="authorization=hunter2")
    checked = undertone("check", *flags, cwd=tmp_path, env=env)
    said = (checked.stdout + checked.stderr).decode()
    assert checked.returncode == 0 and f"http://127.0.0.1:{port}" in said and "0.25" in said and "does not answer" in said, said
    assert "hunter2" not in said
    for wrong in (traced("http://ann:hunter2@c:4317"), traced(f"http://c:{port}", UNDERTONE_TELEMETRY__SAMPLE="2")):
        checked = undertone("check", *flags, cwd=tmp_path, env=wrong)
        said = (checked.stdout + checked.stderr).decode()
        assert checked.returncode == 2 and "telemetry." in said and "hunter2" not in said, said
