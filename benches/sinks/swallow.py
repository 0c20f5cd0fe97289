"""Servers that swallow: they answer a sink as its store would, and keep nothing but what the sink reads back.

ClickHouse and OpenSearch stand behind a proxy that answers writes itself; Qdrant's services are here, with what a sink reads
back of points in a dictionary, since a write counts there once it is read back.
"""

from __future__ import annotations

import gzip
from concurrent import futures

import grpc
from qdrant_client import grpc as api
from qdrant_client.grpc import collections_service_pb2_grpc, points_service_pb2_grpc, qdrant_pb2, qdrant_pb2_grpc

from support.latest import SIZE, model_revision
from support.proxy import Answer, Proxy, Request

MEBIBYTES = 1 << 20
READ_BACK = ("version", "scored_at")


def is_write(request: Request) -> bool:
    return request.method == "POST" and (request.path.startswith("/_bulk") or "insert" in request.path.lower())


def swallow(request: Request, _) -> Answer:
    request.body, body = b"", request.body  # the proxy remembers requests
    if not request.path.startswith("/_bulk"):
        return 200, {}, b""
    documents = gzip.decompress(body).count(b"\n") // 2
    return 200, {"Content-Type": "application/json"}, b'{"items":[' + b",".join([b'{"index":{"status":201}}'] * documents) + b"]}"


def in_front_of(url: str) -> Proxy:
    proxy = Proxy(url)
    proxy.replace(is_write, swallow, times=1 << 30)
    return proxy


class Points(points_service_pb2_grpc.PointsServicer):
    def __init__(self) -> None:
        self.held: dict[str, dict[str, api.Value]] = {}

    def Get(self, request, _):  # noqa: N802
        found = [(each, self.held.get(each.uuid)) for each in request.ids]
        return api.GetResponse(result=[api.RetrievedPoint(id=id, payload=held) for id, held in found if held])

    def Upsert(self, request, _):  # noqa: N802
        self.held.update((point.id.uuid, {name: point.payload[name] for name in READ_BACK}) for point in request.points)
        return completed()

    def CreateFieldIndex(self, *_):  # noqa: N802
        return completed()


def completed():
    return api.PointsOperationResponse(result=api.UpdateResult(status=api.UpdateStatus.Completed))


class Health(qdrant_pb2_grpc.QdrantServicer):
    def HealthCheck(self, *_):  # noqa: N802
        return qdrant_pb2.HealthCheckReply(title="swallows everything")


class Collections(collections_service_pb2_grpc.CollectionsServicer):
    def __init__(self, alias: str) -> None:
        self.alias, self.name = alias, f"{alias}-{model_revision()[:12]}"

    def List(self, *_):  # noqa: N802
        return api.ListCollectionsResponse(collections=[api.CollectionDescription(name=self.name)])

    def ListAliases(self, *_):  # noqa: N802
        return api.ListAliasesResponse(aliases=[api.AliasDescription(alias_name=self.alias, collection_name=self.name)])

    def Get(self, *_):  # noqa: N802
        vectors = api.VectorParamsMap(map={"text": api.VectorParams(size=SIZE, distance=api.Distance.Cosine)})
        config = api.CollectionConfig(params=api.CollectionParams(vectors_config=api.VectorsConfig(params_map=vectors)))
        return api.GetCollectionInfoResponse(result=api.CollectionInfo(status=api.CollectionStatus.Green, config=config))


def qdrant(alias: str) -> tuple[grpc.Server, str]:
    """A running server with the collection of `alias`, and its address."""
    limits = [("grpc.max_receive_message_length", 64 * MEBIBYTES)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=limits)
    points_service_pb2_grpc.add_PointsServicer_to_server(Points(), server)
    collections_service_pb2_grpc.add_CollectionsServicer_to_server(Collections(alias), server)
    qdrant_pb2_grpc.add_QdrantServicer_to_server(Health(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"http://127.0.0.1:{port}"
