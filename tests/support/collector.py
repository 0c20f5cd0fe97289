"""An OTLP collector of traces: a real gRPC server that keeps what it is sent.

The messages are those of opentelemetry-proto 1.x, with the fields that the tests look at. What else comes is kept in the
bytes, in which a test can look for what should not be there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message_factory import GetMessageClass

# Message: field, number, type; a * before a type for a list of it.
FIELDS = {
    "Request": [("resource_spans", 1, "*ResourceSpans")],
    "Response": [],
    "ResourceSpans": [("resource", 1, "Resource"), ("scope_spans", 2, "*ScopeSpans")],
    "Resource": [("attributes", 1, "*KeyValue")],
    "ScopeSpans": [("spans", 2, "*Span")],
    "Span": [
        ("trace_id", 1, "bytes"),
        ("span_id", 2, "bytes"),
        ("trace_state", 3, "string"),
        ("parent_span_id", 4, "bytes"),
        ("name", 5, "string"),
        ("kind", 6, "int32"),
        ("start_time_unix_nano", 7, "fixed64"),
        ("end_time_unix_nano", 8, "fixed64"),
        ("attributes", 9, "*KeyValue"),
        ("status", 15, "Status"),
    ],
    "Status": [("code", 3, "int32")],
    "KeyValue": [("key", 1, "string"), ("value", 2, "AnyValue")],
    "AnyValue": [("string_value", 1, "string"), ("int_value", 3, "int64"), ("double_value", 4, "double")],
}
KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}


def messages() -> dict[str, type]:
    file = descriptor_pb2.FileDescriptorProto(name="otlp.proto", package="otlp", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    for message, fields in FIELDS.items():
        made = file.message_type.add(name=message)
        for name, number, kind in fields:
            each = made.field.add(name=name, number=number, label=field.LABEL_REPEATED if kind[0] == "*" else field.LABEL_OPTIONAL)
            kind = kind.lstrip("*")
            if kind in FIELDS:
                each.type, each.type_name = field.TYPE_MESSAGE, f".otlp.{kind}"
            else:
                each.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"otlp.{name}")) for name in FIELDS}


MESSAGES = messages()


@dataclass(frozen=True)
class Span:
    trace: str
    id: str
    parent: str
    name: str
    kind: str
    began: float
    ended: float
    failed: bool
    attributes: dict
    service: str


def attributes(of) -> dict:
    values = {}
    for each in of.attributes:
        named = [value for _, value in each.value.ListFields()]
        values[each.key] = named[0] if named else 0
    return values


class Collector:
    """Listens on a port of its own. With `delay`, each answer takes so many seconds."""

    def __init__(self, delay: float = 0.0) -> None:
        self.raw: list[bytes] = []
        self.delay, self.lock = delay, threading.Lock()
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        export = grpc.unary_unary_rpc_method_handler(self.export, None, lambda answer: answer.SerializeToString())
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
        self.address = f"http://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Collector:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(None)

    def export(self, request: bytes, _: grpc.ServicerContext):
        time.sleep(self.delay)
        with self.lock:
            self.raw.append(request)
        return MESSAGES["Response"]()

    def spans(self) -> list[Span]:
        with self.lock:
            requests = [MESSAGES["Request"].FromString(raw) for raw in self.raw]
        return [
            Span(
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.name,
                KINDS[span.kind],
                span.start_time_unix_nano / 1e9,
                span.end_time_unix_nano / 1e9,
                span.status.code == 2,
                attributes(span),
                attributes(resource.resource).get("service.name", ""),
            )
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def await_spans(self, of: Callable[[Span], bool], count: int = 1, timeout: float = 20) -> list[Span]:
        """Returns the spans that `of` is true of, once there are so many."""
        until = time.monotonic() + timeout
        while len(found := [span for span in self.spans() if of(span)]) < count:
            assert time.monotonic() < until, f"{len(found)} of {count} spans came: {self.spans()}"
            time.sleep(0.05)
        return found
