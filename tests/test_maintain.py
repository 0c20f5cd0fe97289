"""`undertone maintain`: snapshots expire and files go, and whatever is killed when, every row stays and every stream goes on."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table
from servers.iceberg_rest import IcebergRest
from servers.minio import BUCKET, MinIO
from support.posts import generate, with_malformed
from support.process import Running, free_ports, run_once, undertone
from support.promise import assert_promise, check_sums
from support.tables import TABLES, Tables

OFTEN = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "300ms", "UNDERTONE_SINKS__COMMIT_ROWS": "40"}
NOW = ("--older-than", "0s", "--apply")
DAYS = 24 * 3600


def maintain(data: Path, *args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return undertone("maintain", "--data", data, *args, cwd=data.parent, env=env)


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stdout.decode() + done.stderr.decode()


def stream(folder: Path, lines: list[bytes]) -> Path:
    (folder / "posts.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    done = run_once(folder / "data", folder / "posts.jsonl", cwd=folder, env=OFTEN)
    assert done.returncode == 0, done.stderr.decode()
    return folder / "data"


def on_disk(table: Table) -> set[str]:
    root = Path(table.location().removeprefix("file://"))
    return {str(path) for path in root.rglob("*") if path.is_file()}


def needed(table: Table) -> set[str]:
    """What PyIceberg finds that the table refers to."""
    found = {table.metadata_location} | {log.metadata_file for log in table.metadata.metadata_log}
    for snapshot in table.metadata.snapshots:
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            found.add(manifest.manifest_path)
            found |= {entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io)}
    return {path.removeprefix("file://") for path in found}


def litter(table: Table, name: str, age: float) -> Path:
    path = Path(table.location().removeprefix("file://")) / name
    path.write_bytes(b"of a commit that nobody knows")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_it_tells_first_then_does_it_and_pyiceberg_finds_every_row(tmp_path: Path) -> None:
    lines = with_malformed(generate(240, seed=71, cwd=tmp_path), every=20, seed=71)
    data = stream(tmp_path, lines)
    with Tables(data) as tables:
        before = {name: on_disk(tables.load(name)) for name in TABLES}
        young = litter(tables.load("silver.posts"), "data/young.parquet", age=2.9 * DAYS)
        old = litter(tables.load("silver.posts"), "data/old.parquet", age=3.1 * DAYS)
    told = maintain(data, "--older-than", "0s")
    assert told.returncode == 0 and "would expire" in said(told) and "nothing was changed" in said(told), said(told)
    assert "1 files (29 B) of no snapshot; 1 files (29 B) of no snapshot are too young" in said(told), said(told)
    with Tables(data) as tables:
        assert {name: on_disk(tables.load(name)) - {str(young), str(old)} for name in TABLES} == before

    done = maintain(data, *NOW)
    assert done.returncode == 0, said(done)
    with Tables(data) as tables:
        for name in TABLES:
            table = tables.load(name)
            assert len(table.metadata.snapshots) == 1, name
            assert on_disk(table) - {str(young)} == needed(table), name
        assert young.exists() and not old.exists()
    assert_promise(data, lines)
    again = maintain(data, *NOW)
    assert said(again).count("expired 0 snapshots of 1, removed 0 files (0 B) of theirs and 0 files (0 B)") == len(TABLES), said(again)


def test_what_is_younger_than_a_week_stays_unless_it_is_asked_for(tmp_path: Path) -> None:
    data = stream(tmp_path, generate(80, seed=72, cwd=tmp_path))
    with Tables(data) as tables:
        before = {name: on_disk(tables.load(name)) for name in TABLES}
    done = maintain(data, "--apply")
    assert done.returncode == 0 and said(done).count("expired 0 snapshots") == len(TABLES), said(done)
    kept = maintain(data, "--retain-last", "2", *NOW)
    assert kept.returncode == 0, said(kept)
    with Tables(data) as tables:
        assert {name: len(tables.load(name).metadata.snapshots) for name in TABLES} == dict.fromkeys(TABLES, 2)
        assert all(on_disk(tables.load(name)) & before[name] for name in TABLES)
    for wrong, word in ((("--orphans-older-than", "71h"), "72h"), (("--older-than", "soon"), "12h or 7d"), (("--retain-last", "0"), "--retain-last")):
        refused = maintain(data, *wrong)
        assert refused.returncode == 2 and word in said(refused), said(refused)
    nowhere = maintain(tmp_path / "nowhere")
    assert nowhere.returncode == 2 and "has no tables" in said(nowhere) and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("point", ["maintain.expired@1", "maintain.expired@4", "maintain.removed@1", "maintain.removed@20"])
def test_killed_anywhere_it_finishes_when_it_is_run_again(tmp_path: Path, point: str) -> None:
    lines = generate(200, seed=73, cwd=tmp_path)
    data = stream(tmp_path, lines)
    name, _, visit = point.partition("@")
    killed = maintain(data, *NOW, UNDERTONE_FAILPOINTS=f"{name}=abort@{visit}")
    assert killed.returncode != 0, said(killed)
    assert_promise(data, lines)
    done = maintain(data, *NOW)
    assert done.returncode == 0, said(done)
    with Tables(data) as tables:
        for table in map(tables.load, TABLES):
            assert on_disk(table) == needed(table) and len(table.metadata.snapshots) == 1
    assert_promise(data, lines)


@pytest.mark.parametrize("fault", ["catalog.lost-reply", "catalog.lost-commit"])
def test_beside_a_stream_that_commits_all_the_time_nothing_is_lost_or_doubled(tmp_path: Path, fault: str) -> None:
    lines = generate(3000, seed=74, cwd=tmp_path)
    (tmp_path / "posts.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    data = tmp_path / "data"
    env = OFTEN | {"UNDERTONE_SINKS__COMMIT_INTERVAL": "100ms", "UNDERTONE_FAILPOINTS": f"{fault}=on@5"}
    with Running("--data", data, "--input", tmp_path / "posts.jsonl", cwd=tmp_path, env=env) as running:
        running.await_ready()
        expired, rounds = 0, 0
        while rounds < 3 or running.overview()["totals"]["scored"] < 1500:
            done = maintain(data, *NOW)
            assert done.returncode == 0, said(done)
            expired += sum(int(line.split(" expired ")[1].split()[0]) for line in done.stdout.decode().splitlines() if " expired " in line)
            rounds += 1
            assert running.alive(), running.log()
        assert running.get("/readyz").status_code == 200, running.get("/readyz").text
        assert running.stop() == 0, running.log()
    assert expired > 20, "there was something to expire"
    assert run_once(data, tmp_path / "posts.jsonl", cwd=tmp_path, env=OFTEN).returncode == 0
    assert_promise(data, lines)


# ----------------------------------------------------------------------------------------------------- a server and objects


@pytest.fixture
def server(tmp_path: Path, minio: MinIO) -> Iterator[IcebergRest]:
    with IcebergRest(tmp_path / "catalog", minio, prefix=tmp_path.name) as running:
        yield running


def test_in_a_rest_catalog_over_an_object_store_it_is_the_same(server: IcebergRest, minio: MinIO, tmp_path: Path) -> None:
    lines = generate(160, seed=75, cwd=tmp_path)
    (tmp_path / "posts.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    (tmp_path / "u.toml").write_text(server.toml() + minio.toml())
    env = OFTEN | minio.keys() | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    http, grpc = free_ports(2)
    addresses = ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
    common = {"cwd": tmp_path, "env": env}
    done = undertone("run", "--once", "--config", "u.toml", "--input", "posts.jsonl", *addresses, **common)
    assert done.returncode == 0, said(done)
    catalog = load_catalog("rest", **server.properties(), **{"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"})
    assert catalog.load_table("bronze.posts").location().startswith(f"s3://{BUCKET}/")

    told = undertone("maintain", "--config", "u.toml", "--older-than", "0s", **common)
    assert told.returncode == 0 and "would expire" in said(told), said(told)
    killed = undertone("maintain", "--config", "u.toml", *NOW, cwd=tmp_path, env=env | {"UNDERTONE_FAILPOINTS": "maintain.removed=abort@5"})
    assert killed.returncode != 0
    done = undertone("maintain", "--config", "u.toml", *NOW, **common)
    assert done.returncode == 0, said(done)
    with Tables(catalog) as tables:
        for name in TABLES:
            table = tables.load(name)
            assert len(table.metadata.snapshots) == 1, name
            # In MinIO an object is a folder of its name.
            folder = minio.data / table.location().removeprefix("s3://")
            objects = {str(path.parent.relative_to(minio.data)) for path in folder.rglob("xl.meta")}
            wanted = {path.removeprefix("s3://") for path in needed(table)}
            left = {path for path in objects - wanted if not path.endswith(("undertone-check", ".metadata.json"))}
            assert wanted <= objects and not left, name
        offsets = tables.rows("bronze.posts", "offset")["offset"].to_pylist()
        assert sorted(offsets) == list(range(len(lines))) == sorted(tables.rows("silver.posts", "offset")["offset"].to_pylist())
        assert not check_sums(tables)
