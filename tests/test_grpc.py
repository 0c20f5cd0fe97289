"""gRPC as a stranger meets it: everything is learnt from the server's reflection, nothing from generated code."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from support.process import Running

SCORE = "/undertone.v1.Scoring/Score"
HEALTH = "/grpc.health.v1.Health/Check"


@pytest.fixture(scope="module")
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=20)
        yield channel


@pytest.fixture(scope="module")
def reflected(channel: grpc.Channel) -> ProtoReflectionDescriptorDatabase:
    return ProtoReflectionDescriptorDatabase(channel)


class Api:
    """Calls whose messages are built from what reflection says."""

    def __init__(self, channel: grpc.Channel, database: ProtoReflectionDescriptorDatabase) -> None:
        self.channel = channel
        self.pool = descriptor_pool.DescriptorPool(database)

    def message(self, name: str):
        return GetMessageClass(self.pool.FindMessageTypeByName(name))

    def call(self, path: str, request, timeout: float = 20):
        service, method = path.strip("/").split("/")
        described = self.pool.FindServiceByName(service).FindMethodByName(method)
        assert request.DESCRIPTOR.full_name == described.input_type.full_name
        answer = self.message(described.output_type.full_name)
        unary = self.channel.unary_unary(
            path, request_serializer=lambda message: message.SerializeToString(), response_deserializer=answer.FromString
        )
        return unary(request, timeout=timeout)

    def score(self, *texts: str, timeout: float = 20, ids: tuple[str, ...] = (), **fields):
        item = self.message("undertone.v1.ScoreItem")
        ids = ids or ("",) * len(texts)
        items = [item(id=each, text=text) for each, text in zip(ids, texts, strict=True)]
        return self.call(SCORE, self.message("undertone.v1.ScoreRequest")(items=items, **fields), timeout)


@pytest.fixture(scope="module")
def api(channel: grpc.Channel, reflected: ProtoReflectionDescriptorDatabase) -> Api:
    return Api(channel, reflected)


def refused(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_reflection_lists_the_services(reflected: ProtoReflectionDescriptorDatabase):
    assert {"undertone.v1.Scoring", "undertone.v1.Queries", "grpc.health.v1.Health"} <= set(reflected.get_services())


def test_texts_are_scored_in_order_with_their_ids(api: Api, server: Running):
    texts = ("I adore this place", "worst service ever, I want my money back", "it opens at noon")
    response = api.score(*texts, ids=("a", "b", "c"))
    assert [result.id for result in response.results] == ["a", "b", "c"]
    assert response.model.precision == "fp32"
    over_rest = server.post("/v1/score", json={"texts": texts}).json()
    assert response.model.revision == over_rest["model"]["revision"]
    for result, rest in zip(response.results, over_rest["results"], strict=True):
        assert result.WhichOneof("outcome") == "scores"
        (head,) = [head for head in result.scores.heads if head.head == "sentiment"]
        assert head.label == rest["sentiment"]["label"]
        probabilities = {p.label: p.value for p in head.probabilities}
        assert list(probabilities) == list(rest["sentiment"]["probabilities"])
        assert probabilities == pytest.approx(rest["sentiment"]["probabilities"], abs=1e-5)
        assert result.scores.polarity == pytest.approx(rest["polarity"], abs=1e-5)
        assert result.scores.confidence == pytest.approx(rest["confidence"], abs=1e-5)
        assert result.scores.tokens == rest["tokens"]
        assert not result.scores.embedding
    assert response.results[0].scores.polarity > 0.3 > -0.3 > response.results[1].scores.polarity


def test_embeddings_and_heads_come_when_asked_for(api: Api):
    (result,) = api.score("a quiet evening", heads=["sentiment"], embedding=True).results
    assert [head.head for head in result.scores.heads] == ["sentiment"]
    assert len(result.scores.embedding) == 384
    assert math.hypot(*result.scores.embedding) == pytest.approx(1, abs=1e-4)


def test_an_item_that_fails_fails_alone(api: Api):
    response = api.score("good", "  ", "x" * 5000, "bad", ids=("1", "2", "3", "4"))
    assert [result.WhichOneof("outcome") for result in response.results] == ["scores", "error", "error", "scores"]
    assert [result.id for result in response.results] == ["1", "2", "3", "4"]
    errors = [result.error for result in response.results if result.WhichOneof("outcome") == "error"]
    assert [error.code for error in errors] == ["empty-text", "text-too-long"]
    assert all(error.message for error in errors)


@pytest.mark.parametrize(
    ("texts", "fields"),
    [((), {}), (("a",) * 201, {}), (("a",), {"heads": ["mood"]})],
    ids=["no items", "too many items", "unknown head"],
)
def test_a_call_that_makes_no_sense_is_an_invalid_argument(api: Api, texts, fields):
    error = refused(lambda: api.score(*texts, **fields))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details()


def test_a_deadline_is_kept(api: Api):
    # As long as the model reads: no core is through with it in a millisecond.
    error = refused(lambda: api.score("fine weather again " * 200, timeout=0.001))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    # Of a call that was answered in part, the late texts say so themselves.
    # No two are alike: reposts are answered from a cache. A tenth of them tells how long this machine needs.
    texts = tuple(f"text {number} takes its time " * 30 for number in range(220))
    began = time.monotonic()
    api.score(*texts[200:])
    timeout = max(1.0, 4 * (time.monotonic() - began))
    texts = texts[:200]
    began = time.monotonic()
    results = api.score(*texts, timeout=timeout).results
    assert time.monotonic() - began < timeout + 0.5
    assert len(results) == len(texts)
    codes = {result.error.code for result in results if result.WhichOneof("outcome") == "error"}
    assert codes == {"deadline-exceeded"}
    # What was given up does not hold up the next call.
    began = time.monotonic()
    assert api.score("fine", timeout=20).results[0].WhichOneof("outcome") == "scores"
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("method", ["Scoring/Score", "Scoring/GetModel", "Queries/Latest"])
def test_a_message_that_cannot_be_read_is_the_callers_fault(channel: grpc.Channel, method: str):
    call = channel.unary_unary(f"/undertone.v1.{method}", request_serializer=bytes, response_deserializer=bytes)
    error = refused(lambda: call(b"\x0a\xff\xff", timeout=10, metadata=[("x-request-id", "call-7")]))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    trailers = dict(error.trailing_metadata())
    assert (trailers["problem-code"], trailers["x-request-id"]) == ("invalid-input", "call-7")


def test_a_status_tells_what_the_problem_of_rest_tells(api: Api, server: Running):
    """Decoded by what reflection says of `google.rpc`, as a client without our code would."""
    error = refused(lambda: api.score("good", heads=["mood"]))
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = api.message("google.rpc.Status").FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    found = {}
    for detail in status.details:
        name = detail.type_url.removeprefix("type.googleapis.com/")
        found[name] = api.message(name).FromString(detail.value)
    assert set(found) == {"google.rpc.ErrorInfo", "google.rpc.RequestInfo", "google.rpc.BadRequest"}
    problem = server.post("/v1/score", json={"texts": ["good"], "heads": ["mood"]}).json()
    info = found["google.rpc.ErrorInfo"]
    assert (info.domain, f"/problems/{info.reason}") == ("undertone", problem["type"])
    assert dict(info.metadata) == {"title": problem["title"], "status": str(problem["status"])}
    assert found["google.rpc.RequestInfo"].request_id == dict(error.trailing_metadata())["x-request-id"]
    (violation,) = found["google.rpc.BadRequest"].field_violations
    assert (violation.field, violation.description) == ("heads[0]", problem["errors"][0]["detail"])


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel):
    unknown = channel.unary_unary("/undertone.v1.Scoring/Guess", request_serializer=bytes, response_deserializer=bytes)
    assert refused(lambda: unknown(b"", timeout=10)).code() == grpc.StatusCode.UNIMPLEMENTED


def test_bytes_that_are_no_message_are_refused_and_hurt_nobody(channel: grpc.Channel, api: Api):
    raw = channel.unary_unary(SCORE, request_serializer=bytes, response_deserializer=bytes)
    error = refused(lambda: raw(b"\xff\xff\xff\xff", timeout=10))
    assert error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
    assert api.score("fine").results


@pytest.mark.parametrize("service", ["", "undertone.v1.Scoring"])
def test_health_says_serving(api: Api, service: str):
    request = api.message("grpc.health.v1.HealthCheckRequest")(service=service)
    answer = api.call(HEALTH, request)
    (status,) = [value for field, value in answer.ListFields() if field.name == "status"]
    assert answer.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_number[status].name == "SERVING"


def test_health_does_not_know_what_does_not_exist(api: Api):
    request = api.message("grpc.health.v1.HealthCheckRequest")(service="undertone.v1.Nothing")
    assert refused(lambda: api.call(HEALTH, request)).code() == grpc.StatusCode.NOT_FOUND
