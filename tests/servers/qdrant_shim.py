"""Qdrant's engine behind Qdrant's own gRPC services: `qdrant_shim.py FOLDER PORT`.

The engine is Qdrant Edge, which is Qdrant's shard in a process: storage, write-ahead log, filters, payload indexes, search
and most errors are its own. This file translates between the official service definitions and one shard for each collection, and
keeps what a server keeps around shards: collections' names, aliases, and an API key (QDRANT_API_KEY). What it does not know
how to translate it refuses with UNIMPLEMENTED, a call as much as a field of one.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import threading
from concurrent import futures
from pathlib import Path

import grpc
import qdrant_edge as edge
from google.protobuf.message import Message
from qdrant_client import grpc as api
from qdrant_client.grpc import collections_service_pb2_grpc, points_service_pb2_grpc, qdrant_pb2, qdrant_pb2_grpc

DISTANCES = {api.Distance.Cosine: "Cosine", api.Distance.Dot: "Dot", api.Distance.Euclid: "Euclid", api.Distance.Manhattan: "Manhattan"}
FIELDS = {
    api.FieldType.FieldTypeKeyword: edge.PayloadSchemaType.Keyword,
    api.FieldType.FieldTypeInteger: edge.PayloadSchemaType.Integer,
    api.FieldType.FieldTypeFloat: edge.PayloadSchemaType.Float,
    api.FieldType.FieldTypeBool: edge.PayloadSchemaType.Bool,
    api.FieldType.FieldTypeDatetime: edge.PayloadSchemaType.Datetime,
    api.FieldType.FieldTypeUuid: edge.PayloadSchemaType.Uuid,
}
SCHEMA = {str(edge_type): getattr(api.PayloadSchemaType, str(edge_type).rpartition(".")[2]) for edge_type in FIELDS.values()}
# What Qdrant's server answers to a request that is wrong in itself.
WRONG = ("Wrong input", "Vector dimension", "Not existing vector name", "Malformed", "Validation error", "Wrong vector")
MEBIBYTES = 1 << 20


class Refusal(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def unknown(what: object) -> Refusal:
    return Refusal(grpc.StatusCode.UNIMPLEMENTED, f"not translated: {what}")


def only(message: Message, *known: str) -> None:
    """Refuses a message that says more than is translated."""
    more = [field.name for field, _ in message.ListFields() if field.name not in known]
    if more:
        raise unknown(f"{message.DESCRIPTOR.full_name}.{', '.join(more)}")


class Collection:
    """One shard and what it was made with."""

    def __init__(self, folder: Path, vectors: dict | None = None) -> None:
        self.folder, self.lock = folder, threading.Lock()
        meta = folder / "meta.json"
        if vectors is None:
            self.vectors = json.loads(meta.read_text())
            self.shard = edge.EdgeShard.load(str(folder / "shard"))
            return
        self.vectors = vectors
        (folder / "shard").mkdir(parents=True)
        self.shard = edge.EdgeShard.create(str(folder / "shard"), edge.EdgeConfig(vectors={name: params(each) for name, each in vectors.items()}))
        meta.write_text(json.dumps(vectors))


def params(vector: dict) -> edge.EdgeVectorParams:
    quantized = edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8) if vector["quantized"] else None
    distance = getattr(edge.Distance, vector["distance"])
    return edge.EdgeVectorParams(size=vector["size"], distance=distance, on_disk=vector["on_disk"], quantization_config=quantized)


class Engine:
    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, threading.Lock()
        (folder / "collections").mkdir(parents=True, exist_ok=True)
        # A collection that was being made when the process died never was.
        whole = [each for each in (folder / "collections").iterdir() if (each / "meta.json").exists()]
        self.collections = {each.name: Collection(each) for each in whole}
        self.aliases_path = folder / "aliases.json"
        self.aliases = json.loads(self.aliases_path.read_text()) if self.aliases_path.exists() else {}

    def collection(self, name: str) -> Collection:
        found = self.collections.get(self.aliases.get(name, name))
        if not found:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Not found: Collection `{name}` doesn't exist!")
        return found

    def save_aliases(self) -> None:
        new = self.aliases_path.with_suffix(".new")
        new.write_text(json.dumps(self.aliases))
        new.replace(self.aliases_path)


def served(method):
    """A method of a service: checks the key, and turns exceptions into statuses."""

    @functools.wraps(method)
    def wrapped(self, request, context):
        try:
            said = dict(context.invocation_metadata())
            if self.key and self.key not in (said.get("api-key"), said.get("authorization", "").removeprefix("Bearer ")):
                raise Refusal(grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key or an Authorization bearer token")
            return method(self, request)
        except Refusal as refusal:
            context.abort(refusal.code, str(refusal))
        except Exception as error:
            wrong = any(word in str(error) for word in WRONG)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT if wrong else grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    return wrapped


class Collections(collections_service_pb2_grpc.CollectionsServicer):
    def __init__(self, engine: Engine, key: str) -> None:
        self.engine, self.key = engine, key

    @served
    def List(self, _):  # noqa: N802
        return api.ListCollectionsResponse(collections=[api.CollectionDescription(name=name) for name in sorted(self.engine.collections)])

    @served
    def CollectionExists(self, request):  # noqa: N802
        exists = request.collection_name in self.engine.collections or request.collection_name in self.engine.aliases
        return api.CollectionExistsResponse(result=api.CollectionExists(exists=exists))

    @served
    def Get(self, request):  # noqa: N802
        collection = self.engine.collection(request.collection_name)
        vectors = {
            name: api.VectorParams(
                size=each["size"],
                distance=api.Distance.Value(each["distance"]),
                on_disk=each["on_disk"],
                quantization_config=api.QuantizationConfig(scalar=api.ScalarQuantization(type=api.QuantizationType.Int8)) if each["quantized"] else None,
            )
            for name, each in collection.vectors.items()
        }
        indexes = {name: api.PayloadSchemaInfo(data_type=SCHEMA[str(each.data_type)]) for name, each in collection.shard.info().payload_schema.items()}
        config = api.CollectionConfig(params=api.CollectionParams(vectors_config=api.VectorsConfig(params_map=api.VectorParamsMap(map=vectors))))
        points = collection.shard.count(edge.CountRequest(exact=True))
        return api.GetCollectionInfoResponse(result=api.CollectionInfo(status=api.CollectionStatus.Green, points_count=points, config=config, payload_schema=indexes))

    @served
    def Create(self, request):  # noqa: N802
        only(request, "collection_name", "vectors_config")
        if request.vectors_config.WhichOneof("config") != "params_map":
            raise unknown("a vector without a name")
        vectors = {}
        for name, each in request.vectors_config.params_map.map.items():
            only(each, "size", "distance", "on_disk", "quantization_config")
            if each.HasField("quantization_config"):
                if each.quantization_config.WhichOneof("quantization") != "scalar":
                    raise unknown("quantization other than scalar")
                only(each.quantization_config.scalar, "type")
                if each.quantization_config.scalar.type != api.QuantizationType.Int8:
                    raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "Unknown quantization type")
            vectors[name] = {
                "size": each.size,
                "distance": DISTANCES[each.distance],
                "on_disk": each.on_disk,
                "quantized": each.HasField("quantization_config"),
            }
        with self.engine.lock:
            if request.collection_name in self.engine.collections:
                raise Refusal(grpc.StatusCode.ALREADY_EXISTS, f"Wrong input: Collection `{request.collection_name}` already exists!")
            folder = self.engine.folder / "collections" / request.collection_name
            shutil.rmtree(folder, ignore_errors=True)
            self.engine.collections[request.collection_name] = Collection(folder, vectors)
        return api.CollectionOperationResponse(result=True)

    @served
    def Delete(self, request):  # noqa: N802
        with self.engine.lock:
            collection = self.engine.collections.pop(request.collection_name, None)
            if collection:
                with collection.lock:
                    collection.shard.close()
                    shutil.rmtree(collection.folder)
                self.engine.aliases = {alias: name for alias, name in self.engine.aliases.items() if name != request.collection_name}
                self.engine.save_aliases()
        return api.CollectionOperationResponse(result=collection is not None)

    @served
    def UpdateAliases(self, request):  # noqa: N802
        with self.engine.lock:
            for action in request.actions:
                kind = action.WhichOneof("action")
                if kind == "create_alias":
                    self.engine.collection(action.create_alias.collection_name)
                    self.engine.aliases[action.create_alias.alias_name] = action.create_alias.collection_name
                elif kind == "delete_alias":
                    self.engine.aliases.pop(action.delete_alias.alias_name, None)
                else:
                    raise unknown(kind)
            self.engine.save_aliases()
        return api.CollectionOperationResponse(result=True)

    @served
    def ListAliases(self, _):  # noqa: N802
        aliases = sorted(self.engine.aliases.items())
        return api.ListAliasesResponse(aliases=[api.AliasDescription(alias_name=alias, collection_name=name) for alias, name in aliases])


class Points(points_service_pb2_grpc.PointsServicer):
    def __init__(self, engine: Engine, key: str) -> None:
        self.engine, self.key = engine, key

    @served
    def CreateFieldIndex(self, request):  # noqa: N802
        only(request, "collection_name", "wait", "field_name", "field_type")
        if request.field_type not in FIELDS:
            raise unknown(f"an index of type {request.field_type}")
        return self.update(request.collection_name, [edge.UpdateOperation.create_field_index(request.field_name, FIELDS[request.field_type])])

    @served
    def Upsert(self, request):  # noqa: N802
        only(request, "collection_name", "wait", "points", "update_filter")
        return self.update(request.collection_name, [upsert(request)])

    @served
    def UpdateBatch(self, request):  # noqa: N802
        only(request, "collection_name", "wait", "operations")
        operations = []
        for operation in request.operations:
            if operation.WhichOneof("operation") != "upsert":
                raise unknown(operation.WhichOneof("operation"))
            only(operation.upsert, "points", "update_filter")
            operations.append(upsert(operation.upsert))
        self.update(request.collection_name, operations)
        return api.UpdateBatchResponse(result=[api.UpdateResult(status=api.UpdateStatus.Completed) for _ in operations])

    def update(self, name: str, operations: list[edge.UpdateOperation]):
        collection = self.engine.collection(name)
        with collection.lock:
            for operation in operations:
                collection.shard.update(operation)
        return api.PointsOperationResponse(result=api.UpdateResult(status=api.UpdateStatus.Completed))

    @served
    def Get(self, request):  # noqa: N802
        only(request, "collection_name", "ids", "with_payload", "with_vectors")
        shard = self.engine.collection(request.collection_name).shard
        found = shard.retrieve([point_id(each) for each in request.ids], payload_selector(request.with_payload), vectors_selector(request.with_vectors))
        return api.GetResponse(result=[retrieved(each) for each in found])

    @served
    def Count(self, request):  # noqa: N802
        only(request, "collection_name", "filter", "exact")
        wanted = condition_filter(request.filter) if request.HasField("filter") else None
        count = self.engine.collection(request.collection_name).shard.count(edge.CountRequest(exact=True, filter=wanted))
        return api.CountResponse(result=api.CountResult(count=count))

    @served
    def Scroll(self, request):  # noqa: N802
        only(request, "collection_name", "filter", "offset", "limit", "with_payload", "with_vectors")
        shard = self.engine.collection(request.collection_name).shard
        points, following = shard.scroll(
            edge.ScrollRequest(
                offset=point_id(request.offset) if request.HasField("offset") else None,
                limit=request.limit or 10,
                filter=condition_filter(request.filter) if request.HasField("filter") else None,
                with_payload=payload_selector(request.with_payload),
                with_vector=vectors_selector(request.with_vectors),
            )
        )
        return api.ScrollResponse(result=[retrieved(each) for each in points], next_page_offset=None if following is None else id_of(following))

    @served
    def Query(self, request):  # noqa: N802
        only(request, "collection_name", "query", "using", "filter", "limit", "with_payload", "with_vectors")
        if request.query.WhichOneof("variant") != "nearest" or request.query.nearest.WhichOneof("variant") != "dense":
            raise unknown("a query other than for the neighbours of a dense vector")
        found = self.engine.collection(request.collection_name).shard.query(
            edge.QueryRequest(
                limit=request.limit or 10,
                query=edge.Query.Nearest(list(request.query.nearest.dense.data), using=request.using),
                filter=condition_filter(request.filter) if request.HasField("filter") else None,
                with_payload=payload_selector(request.with_payload),
            )
        )
        return api.QueryResponse(
            result=[api.ScoredPoint(id=id_of(each.id), score=each.score, version=each.version, payload=payload_of(each.payload)) for each in found]
        )


def upsert(request) -> edge.UpdateOperation:
    condition = condition_filter(request.update_filter) if request.HasField("update_filter") else None
    return edge.UpdateOperation.upsert_points([point(each) for each in request.points], condition)


def point(given) -> edge.Point:
    vectors = {}
    if given.vectors.WhichOneof("vectors_options") != "vectors":
        raise unknown("a vector without a name")
    for name, each in given.vectors.vectors.vectors.items():
        if each.WhichOneof("vector") == "dense":
            vectors[name] = list(each.dense.data)
        elif each.data:
            vectors[name] = list(each.data)
        else:
            raise unknown("a vector that is not dense")
    return edge.Point(point_id(given.id), vectors, {name: plain(value) for name, value in given.payload.items()})


def point_id(given) -> int | str:
    import uuid

    return given.num if given.WhichOneof("point_id_options") == "num" else str(uuid.UUID(given.uuid))


def id_of(value) -> api.PointId:
    return api.PointId(num=value) if isinstance(value, int) else api.PointId(uuid=str(value))


def plain(value):
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {name: plain(each) for name, each in value.struct_value.fields.items()}
    if kind == "list_value":
        return [plain(each) for each in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def value_of(value) -> api.Value:
    if value is None:
        return api.Value(null_value=0)
    if isinstance(value, bool):
        return api.Value(bool_value=value)
    if isinstance(value, int):
        return api.Value(integer_value=value)
    if isinstance(value, float):
        return api.Value(double_value=value)
    if isinstance(value, str):
        return api.Value(string_value=value)
    if isinstance(value, list):
        return api.Value(list_value=api.ListValue(values=[value_of(each) for each in value]))
    return api.Value(struct_value=api.Struct(fields=payload_of(value)))


def payload_of(payload) -> dict[str, api.Value]:
    return {name: value_of(value) for name, value in (payload or {}).items()}


def retrieved(record) -> api.RetrievedPoint:
    vectors = None
    if record.vector is not None:
        dense = {name: api.VectorOutput(dense=api.DenseVector(data=numbers)) for name, numbers in record.vector.items()}
        vectors = api.VectorsOutput(vectors=api.NamedVectorsOutput(vectors=dense))
    return api.RetrievedPoint(id=id_of(record.id), payload=payload_of(record.payload), vectors=vectors)


def payload_selector(selector):
    kind = selector.WhichOneof("selector_options")
    if kind == "include":
        return list(selector.include.fields)
    if kind in (None, "enable"):
        return bool(kind and selector.enable)
    raise unknown(kind)


def vectors_selector(selector):
    kind = selector.WhichOneof("selector_options")
    if kind in (None, "enable"):
        return bool(kind and selector.enable)
    raise unknown(kind)


def condition_filter(given) -> edge.Filter:
    only(given, "must", "should", "must_not")
    lists = {name: [condition(each) for each in getattr(given, name)] or None for name in ("must", "should", "must_not")}
    return edge.Filter(**lists)


def condition(given):
    kind = given.WhichOneof("condition_one_of")
    if kind == "filter":
        return condition_filter(given.filter)
    if kind == "is_empty":
        return edge.IsEmptyCondition(given.is_empty.key)
    if kind == "has_id":
        return edge.HasIdCondition([point_id(each) for each in given.has_id.has_id])
    if kind != "field":
        raise unknown(kind)
    field = given.field
    only(field, "key", "match", "range")
    match = bounds = None
    if field.HasField("match"):
        wanted = field.match.WhichOneof("match_value")
        if wanted not in ("keyword", "integer", "boolean"):
            raise unknown(wanted)
        match = edge.MatchValue(getattr(field.match, wanted))
    if field.HasField("range"):
        bounds = edge.RangeFloat(**{name: getattr(field.range, name) for name in ("gt", "gte", "lt", "lte") if field.range.HasField(name)})
    return edge.FieldCondition(field.key, match=match, range=bounds)


class Health(qdrant_pb2_grpc.QdrantServicer):
    def __init__(self, key: str) -> None:
        self.key = key

    @served
    def HealthCheck(self, _):  # noqa: N802
        return qdrant_pb2.HealthCheckReply(title="qdrant edge behind a shim", version="1.20.0")


def main() -> None:
    folder, port, key = Path(sys.argv[1]), int(sys.argv[2]), os.environ.get("QDRANT_API_KEY", "")
    engine = Engine(folder)
    limits = [("grpc.max_receive_message_length", 64 * MEBIBYTES), ("grpc.max_send_message_length", 64 * MEBIBYTES), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=limits)
    collections_service_pb2_grpc.add_CollectionsServicer_to_server(Collections(engine, key), server)
    points_service_pb2_grpc.add_PointsServicer_to_server(Points(engine, key), server)
    qdrant_pb2_grpc.add_QdrantServicer_to_server(Health(key), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
