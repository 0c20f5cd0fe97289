#!/usr/bin/env python3
"""Starts Kafka, MinIO, an Iceberg REST catalog, and OpenSearch, ClickHouse's and Qdrant's engines on their well-known ports of
127.0.0.1, until Ctrl-C. No Docker.

    tests/servers/stack.py [--data DIR] [--without-stores]

What they hold stays in DIR (default ./data/stack), for the next time. `scripts/setup.py servers` installs them first, and
`make stack` does both. The engines of ClickHouse and Qdrant are Python packages of the tests' environment: without it (`make
test` makes it) they are left out, and so is OpenSearch where there is no Java that it runs on.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import signal
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

from cache import CACHE  # noqa: E402
from install_servers import OPENSEARCH, OPENSEARCH_JAVA, find_newer_java  # noqa: E402
from servers.clickhouse import ClickHouse  # noqa: E402
from servers.iceberg_rest import IcebergRest  # noqa: E402
from servers.kafka import Kafka  # noqa: E402
from servers.minio import MinIO  # noqa: E402
from servers.opensearch import OpenSearch  # noqa: E402
from servers.process import Died, Server  # noqa: E402
from servers.qdrant import Qdrant  # noqa: E402

# Kafka's controller takes the port after the broker's; OpenSearch's nodes talk 100 ports further.
KAFKA_PORT, MINIO_PORT, REST_PORT = 9092, 9000, 8181
OPENSEARCH_PORT, CLICKHOUSE_PORT, QDRANT_PORT = 9200, 8123, 6334


class Stopped(Exception):
    """Somebody asked for the end."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/stack"), help="where the servers keep their data (%(default)s)")
    parser.add_argument("--without-stores", action="store_true", help="only Kafka, MinIO and the catalog")
    options = parser.parse_args()
    folder = options.data.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return fail(f"a stack is already running on {folder}")
        stores, missing = ([], []) if options.without_stores else latest(folder)
        ports = [KAFKA_PORT, KAFKA_PORT + 1, MINIO_PORT, REST_PORT, *(store.port for store in stores)]
        taken = [port for port in ports if is_taken(port)]
        if taken:
            return fail(f"ports in use by somebody else: {', '.join(map(str, taken))}")
        kafka = Kafka(folder / "kafka", KAFKA_PORT)
        minio = MinIO(folder / "minio", MINIO_PORT)
        catalog = IcebergRest(folder / "iceberg-rest", minio, REST_PORT)
        for name in missing:
            print(f"stack: {name}", file=sys.stderr)
        return serve(folder, kafka, minio, catalog, stores)


def latest(folder: Path) -> tuple[list[Server], list[str]]:
    """The stores of the latest of every post that can be had here, and why the others cannot."""
    stores: list[Server] = []
    missing = []
    if not OPENSEARCH.folder.is_dir() or not find_newer_java():
        missing.append(f"without OpenSearch, which needs Java {OPENSEARCH_JAVA} or newer: `scripts/setup.py servers` fetches both")
    else:
        stores.append(OpenSearch(folder / "opensearch", OPENSEARCH_PORT))
    if (CACHE / "test-env" / "bin" / "python").exists():
        stores += [ClickHouse(folder / "clickhouse", CLICKHOUSE_PORT), Qdrant(folder / "qdrant", QDRANT_PORT)]
    else:
        missing.append("without ClickHouse and Qdrant, whose engines are in the tests' Python environment: `scripts/setup.py test` makes it")
    return stores, missing


def serve(folder: Path, kafka: Kafka, minio: MinIO, catalog: IcebergRest, stores: list[Server]) -> int:
    """Runs them until a signal comes or one of them ends, and then stops them all, the last first."""
    servers: tuple[Server, ...] = (minio, catalog, kafka, *stores)
    on_signals(stop)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        try:
            for server in servers:
                stack.callback(server.stop)
                server.launch()
            for server in servers:
                server.await_ready()
            print(f"ready after {time.monotonic() - began:.1f} s, with data in {folder}\n\n{addresses(kafka, minio, catalog, stores)}", flush=True)
            while all(server.alive() for server in servers):
                time.sleep(0.5)
            raise Died("\n".join(f"{server.name} has ended:\n{server.tail()}" for server in servers if not server.alive()))
        except Died as error:
            return fail(str(error))
        except Stopped:
            print("stopping", flush=True)
            return 0
        finally:
            on_signals(signal.SIG_IGN)  # one is enough: the servers are being stopped


def stop(*_: object) -> None:
    raise Stopped


def on_signals(handler) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def addresses(kafka: Kafka, minio: MinIO, catalog: IcebergRest, stores: list[Server]) -> str:
    """Where they are, and what a client of each must be told."""
    tables = "\n".join(f"    {name} = {value}" for name, value in catalog.properties().items())
    toml = "\n".join(server.toml() for server in (kafka, catalog, minio, *stores))
    engines = {"clickhouse": "ClickHouse's engine behind HTTP", "qdrant": "Qdrant's engine behind gRPC", "opensearch": "OpenSearch"}
    latest = "\n".join(f"{engines[store.name]}    {store.url}    (pid {store.pid})" for store in stores)
    keys = " ".join(f"{name}={value}" for name, value in minio.keys().items())
    return f"""Kafka            {kafka.brokers}    (make topics yourself; pid {kafka.pid})
Iceberg catalog  {catalog.uri}    (REST; warehouse {catalog.warehouse}; pid {catalog.pid})
MinIO            {minio.endpoint}    (S3; keys {minio.access_key} / {minio.secret_key}; pid {minio.pid})
{latest}

A Kafka client takes bootstrap.servers = {kafka.brokers}, an Iceberg client:
{tables}

Undertone takes this file, with {keys} in its environment:

{toml}
Ctrl-C stops them."""


def fail(message: str) -> int:
    print(f"stack: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
