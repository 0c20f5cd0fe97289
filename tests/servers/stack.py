#!/usr/bin/env python3
"""Starts Kafka, MinIO and an Iceberg REST catalog on their well-known ports of 127.0.0.1, until Ctrl-C. No Docker.

    tests/servers/stack.py [--data DIR]

What they hold stays in DIR (default ./data/stack), for the next time. `scripts/setup.py servers` installs them first, and
`make stack` does both.
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

from servers.iceberg_rest import IcebergRest  # noqa: E402
from servers.kafka import Kafka  # noqa: E402
from servers.minio import MinIO  # noqa: E402
from servers.process import Died, Server  # noqa: E402

# Kafka's controller takes the port after the broker's.
KAFKA_PORT, MINIO_PORT, REST_PORT = 9092, 9000, 8181


class Stopped(Exception):
    """Somebody asked for the end."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/stack"), help="where the servers keep their data (%(default)s)")
    folder = parser.parse_args().data.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return fail(f"a stack is already running on {folder}")
        taken = [port for port in (KAFKA_PORT, KAFKA_PORT + 1, MINIO_PORT, REST_PORT) if is_taken(port)]
        if taken:
            return fail(f"ports in use by somebody else: {', '.join(map(str, taken))}")
        kafka = Kafka(folder / "kafka", KAFKA_PORT)
        minio = MinIO(folder / "minio", MINIO_PORT)
        catalog = IcebergRest(folder / "iceberg-rest", minio, REST_PORT)
        return serve(folder, kafka, minio, catalog)


def serve(folder: Path, kafka: Kafka, minio: MinIO, catalog: IcebergRest) -> int:
    """Runs them until a signal comes or one of them ends, and then stops them all, the last first."""
    servers: tuple[Server, ...] = (minio, catalog, kafka)
    on_signals(stop)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        try:
            for server in servers:
                stack.callback(server.stop)
                server.launch()
            for server in servers:
                server.await_ready()
            print(f"ready after {time.monotonic() - began:.1f} s, with data in {folder}\n\n{addresses(kafka, minio, catalog)}", flush=True)
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


def addresses(kafka: Kafka, minio: MinIO, catalog: IcebergRest) -> str:
    """Where they are, and what a client of each must be told."""
    tables = "\n".join(f"    {name} = {value}" for name, value in catalog.properties().items())
    toml = "\n".join(server.toml() for server in (kafka, catalog, minio))
    keys = " ".join(f"{name}={value}" for name, value in minio.keys().items())
    return f"""Kafka            {kafka.brokers}    (make topics yourself; pid {kafka.pid})
Iceberg catalog  {catalog.uri}    (REST; warehouse {catalog.warehouse}; pid {catalog.pid})
MinIO            {minio.endpoint}    (S3; keys {minio.access_key} / {minio.secret_key}; pid {minio.pid})

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
