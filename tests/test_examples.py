"""The configurations in `examples/`, word for word but for addresses and names, against the servers that `make stack` starts."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog
from servers.iceberg_rest import IcebergRest
from servers.kafka import Kafka
from servers.minio import BUCKET, MinIO
from support.catalog import catalog, server  # noqa: F401
from support.posts import generate
from support.process import ROOT, free_ports, undertone
from support.topics import Topics, assert_promise

EXAMPLES = ROOT / "examples"


def written(name: str, folder: Path, **addresses: str) -> Path:
    """The example with these addresses in the place of the well-known ones."""
    text = (EXAMPLES / name).read_text()
    for known, address in addresses.items():
        assert WELL_KNOWN[known] in text, f"{name} does not name {WELL_KNOWN[known]}"
        text = text.replace(WELL_KNOWN[known], address)
    path = folder / name
    path.write_text(text)
    return path


WELL_KNOWN = {"kafka": '"127.0.0.1:9092"', "rest": '"http://127.0.0.1:8181"', "minio": '"http://127.0.0.1:9000"'}


def call(command: str, config: Path, env: dict[str, str], *args: object) -> subprocess.CompletedProcess[bytes]:
    http, grpc = free_ports(2)
    addresses = () if command == "init" else ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
    env = env | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = undertone(command, "--config", config, *addresses, *args, cwd=config.parent, env=env, timeout=110)
    assert done.returncode == 0, done.stderr.decode()
    return done


def new_topics(kafka: Kafka) -> tuple[Topics, dict[str, str]]:
    """Topics that `init` is still to make, and the environment that names them, since the broker is shared."""
    topics = Topics(kafka.brokers)
    topics.raw, topics.scored, topics.dead = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("raw", "scored", "dead"))
    names = topics.settings()
    return topics, {name: value for name, value in names.items() if "BROKERS" not in name and "MAX" not in name}


def stream(config: Path, topics: Topics, env: dict[str, str]) -> None:
    """Makes topics and tables, sends posts, and stores them all."""
    made = call("init", config, env).stdout.decode()
    assert topics.raw in made and "bronze.posts" in made, made
    topics.produce(generate(120, seed=11, cwd=config.parent))
    call("run", config, env, "--once")


@pytest.mark.timeout(240)
def test_the_stream_on_kafka(kafka: Kafka, tmp_path: Path) -> None:
    topics, env = new_topics(kafka)
    stream(written("kafka.toml", tmp_path, kafka=f'"{kafka.brokers}"'), topics, env)
    assert_promise(topics, tmp_path / "data")


@pytest.mark.timeout(240)
def test_the_stream_in_a_rest_catalog_and_minio(kafka: Kafka, server: IcebergRest, catalog: Catalog, minio: MinIO, tmp_path: Path) -> None:  # noqa: F811
    topics, env = new_topics(kafka)
    config = written("rest-s3.toml", tmp_path, kafka=f'"{kafka.brokers}"', rest=f'"{server.uri}"', minio=f'"{minio.endpoint}"')
    stream(config, topics, env | minio.keys())
    assert_promise(topics, catalog)


@pytest.mark.timeout(240)
def test_the_embedded_stream_in_minio(minio: MinIO, tmp_path: Path) -> None:
    config = written("sqlite-s3.toml", tmp_path, minio=f'"{minio.endpoint}"')
    config.write_text(config.read_text().replace(f"s3://{BUCKET}/undertone", f"s3://{BUCKET}/{tmp_path.name}"))
    (tmp_path / "posts.jsonl").write_bytes(b"".join(line + b"\n" for line in generate(60, seed=12, cwd=tmp_path)))
    call("run", config, minio.keys(), "--once", "--input", tmp_path / "posts.jsonl")
    stored = {path.relative_to(minio.data / BUCKET / tmp_path.name).parts[:2] for path in (minio.data / BUCKET / tmp_path.name).rglob("*.parquet")}
    assert {("bronze", "posts"), ("silver", "posts")} <= stored, stored
    assert not list((tmp_path / "data").rglob("*.parquet"))
