"""Queries over gRPC, said as REST says them, so that the answers of both can be compared."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
WINDOWS = {"1m": "WINDOW_MINUTE", "1h": "WINDOW_HOUR"}
FILTERS = ("source", "language", "label", "tag")


def micros(text: str) -> int:
    return round((datetime.fromisoformat(text.replace("Z", "+00:00")) - EPOCH) / timedelta(microseconds=1))


class Queries:
    """Calls of `undertone.v1.Queries` at an address, with messages that reflection describes."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
        self.pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))

    def __enter__(self) -> Queries:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def ask(self, name: str, params: dict, timeout: float = 30):
        """The answer to the parameters that REST takes."""
        service = self.pool.FindServiceByName("undertone.v1.Queries")
        method = service.FindMethodByName(name.capitalize())
        fields = {key: value for key, value in params.items() if key not in (*FILTERS, "from", "to", "window")}
        if chosen := {key: params[key] for key in FILTERS if key in params}:
            fields["filter"] = GetMessageClass(self.pool.FindMessageTypeByName("undertone.v1.PostFilter"))(**chosen)
        fields |= {f"{key}_us": micros(params[key]) for key in ("from", "to") if key in params}
        if "window" in params:
            fields["window"] = self.pool.FindEnumTypeByName("undertone.v1.Window").values_by_name[WINDOWS[params["window"]]].number
        answer = GetMessageClass(method.output_type)
        call = self.channel.unary_unary(
            f"/undertone.v1.Queries/{method.name}", request_serializer=lambda message: message.SerializeToString(), response_deserializer=answer.FromString
        )
        return call(GetMessageClass(method.input_type)(**fields), timeout=timeout)

    def agree(self, name: str, params: dict, said: dict, **given: object) -> None:
        """Checks that the answer over gRPC is the one that REST gave."""
        assert_says(self.ask(name, params, **given), said)


def assert_says(message, said: dict) -> None:
    """Whether a message has the members of an answer of REST, and no others."""
    named = {field.name.removesuffix("_us") for field in message.DESCRIPTOR.fields}
    assert named == set(said), (named, set(said))
    for field in message.DESCRIPTOR.fields:
        value, wanted = getattr(message, field.name), said[field.name.removesuffix("_us")]
        if field.name.endswith("_us"):
            assert value == micros(wanted), field.name
        elif field.name == "window":
            assert field.enum_type.values_by_number[value].name == WINDOWS[wanted]
        elif field.is_repeated and field.message_type:
            assert len(value) == len(wanted), field.name
            for each, each_wanted in zip(value, wanted, strict=True):
                assert_says(each, each_wanted)
        elif field.is_repeated:
            assert list(value) == wanted, field.name
        elif field.message_type:
            assert_says(value, wanted)
        elif field.has_presence and not message.HasField(field.name):
            assert wanted is None, field.name
        elif isinstance(value, float):
            assert abs(value - wanted) < 1e-5, field.name
        else:
            assert value == wanted, field.name
