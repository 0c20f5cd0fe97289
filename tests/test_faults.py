"""Ill servers, full disks, clocks that are set, topics that forget: nothing is lost, nothing doubled, and nobody is called but
where docs/promise.md wants a person.

Each fault is real: the broker is killed in the middle of a transaction, answers of the catalog and of the store are spoiled on
their way (support/proxy.py), a limit of the system makes the disk full, a library steps the clock (support/clock.c).
"""

from __future__ import annotations

import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from pyiceberg.catalog import Catalog, load_catalog
from servers.iceberg_rest import IcebergRest
from servers.kafka import Kafka
from servers.minio import MinIO
from support import foreign
from support.campaign import CONFIG
from support.catalog import PYARROW, catalog, clear, server  # noqa: F401
from support.ledger import Ledger
from support.posts import generate, with_malformed
from support.process import ROOT, Running, free_ports, undertone
from support.proxy import Proxy, Request, Spoil
from support.tables import Tables
from support.topics import Topics, assert_promise, violations

OFTEN = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "300ms", "UNDERTONE_SINKS__COMMIT_ROWS": "200"}
ROLES = ("--roles", "score,bronze,silver,gold")


class Site:
    """Topics, a configuration file, and the environment beside it."""

    def __init__(self, brokers: str, folder: Path, *sections: str, keys: dict[str, str] | None = None) -> None:
        self.folder, self.topics, self.data = folder, Topics(brokers, partitions=3), folder / "data"
        self.config = folder / "u.toml"
        self.config.write_text("\n".join((*sections, CONFIG)))
        self.env = (keys or {}) | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} | OFTEN
        self.seed = 700

    def produce(self, count: int) -> None:
        self.seed += 1
        self.topics.produce(with_malformed(generate(count, seed=self.seed, cwd=self.folder), every=20, seed=self.seed))

    def start(self, *args: object, **env: str) -> Running:
        settings = self.topics.settings(**env) | self.env
        return Running("--config", self.config, "--data", self.data, *(args or ROLES), cwd=self.folder, env=settings)

    def once(self, *args: object, **env: str) -> subprocess.CompletedProcess[bytes]:
        http, grpc = free_ports(2)
        addresses = ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
        command = ("run", "--once", "--config", self.config, "--data", self.data, *addresses, *(args or ROLES))
        return undertone(*command, cwd=self.folder, env=self.topics.settings(**env) | self.env, timeout=150)

    def finish(self, where: Path | Catalog) -> None:
        done = self.once()
        assert done.returncode == 0, done.stderr.decode()
        assert_promise(self.topics, where)

    def scored(self) -> int:
        """How far scoring has come, in offsets."""
        return sum(self.topics.committed().values())


def is_commit(request: Request) -> bool:
    """Whether it asks for a change of a table that is there."""
    return request.method == "POST" and "/tables/" in request.path


def is_upload(end: str) -> Callable[[Request], bool]:
    return lambda request: request.method == "PUT" and request.path.partition("?")[0].endswith(end)


# ------------------------------------------------------------------------------------------------------------- the broker


@pytest.mark.full
@pytest.mark.timeout(240)
def test_a_broker_that_restarts_in_the_middle_of_a_transaction(tmp_path: Path) -> None:
    """Killed and started again while the process stands between two steps, and then goes on by itself."""
    marker = tmp_path / "paused"
    with Kafka(tmp_path / "kafka") as kafka:
        site = Site(kafka.brokers, tmp_path)
        for point in ("score.flushed", "score.offsets-sent"):
            site.produce(120)
            env = {"UNDERTONE_FAILPOINTS": f"{point}=pause@1", "UNDERTONE_FAILPOINT_MARKER": str(marker)}
            with site.start("--roles", "score", **env) as running:
                running.await_file(marker)
                kafka.restart()
                marker.unlink()
                events = len(site.topics.events)
                running.await_that(lambda: site.scored() >= events, f"score the rest after a restart at {point}", 60)
                assert running.stop() == 0, running.log()
        site.finish(site.data)


# ------------------------------------------------------------------------------------- answers of the catalog and the store


def test_a_catalog_that_says_500_after_it_has_committed(kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    with Proxy(server.uri) as proxy:
        site = Site(kafka.brokers, tmp_path, server.toml().replace(server.uri, proxy.uri), minio.toml(), keys=minio.keys())
        site.produce(300)
        for status in (500, 502, 503, 504):
            proxy.spoil(is_commit, Spoil(status=status), times=3)
        # And some that it has not heard of.
        for status in (500, 503):
            proxy.spoil(is_commit, Spoil(forwarded=False, status=status), times=2)
        site.finish(catalog)
        assert len([request for request in proxy.lost() if request.status == 200]) >= 6, "commits must have happened"


@pytest.mark.full
@pytest.mark.timeout(200)
def test_a_catalog_that_answers_too_late(kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    """The commit is made at once and the answer comes when nobody waits for it any more."""
    with Proxy(server.uri) as proxy:
        site = Site(kafka.brokers, tmp_path, server.toml().replace(server.uri, proxy.uri), minio.toml(), keys=minio.keys())
        site.produce(100)
        proxy.spoil(lambda request: is_commit(request) and b'"added-records"' in request.body, Spoil(status=200, seconds=33), times=2)
        site.finish(catalog)
        assert [request for request in proxy.lost() if request.status == 200]


def test_a_store_that_fails_in_the_middle_of_an_upload(kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    with Proxy(minio.endpoint) as proxy:
        site = Site(kafka.brokers, tmp_path, server.toml(), minio.toml().replace(minio.endpoint, proxy.uri), keys=minio.keys())
        site.produce(300)
        for end in (".parquet", ".avro"):
            proxy.spoil(is_upload(end), Spoil(forwarded=False, status=503), times=4)
            proxy.spoil(is_upload(end), Spoil(forwarded=False), times=4)
            proxy.spoil(is_upload(end), Spoil(forwarded=False, status=500), times=4)
        site.finish(catalog)
        assert len(proxy.lost()) >= 20, f"{len(proxy.lost())} uploads were spoiled"


# ----------------------------------------------------------------------------------------------------------- a foreign writer


@pytest.mark.full
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["rest", "sqlite"])
def test_somebody_else_appends_deletes_and_expires_snapshots_meanwhile(kafka: Kafka, server: IcebergRest, minio: MinIO, tmp_path: Path, kind: str):
    rest = kind == "rest"
    site = Site(kafka.brokers, tmp_path, *([server.toml(), minio.toml()] if rest else []), keys=minio.keys())
    tables = Tables(load_catalog("rest", **server.properties(), **PYARROW) if rest else site.data)
    theirs = tables.catalog
    try:
        did = 0
        with site.start() as running:
            for turn in range(10):
                site.produce(60)
                running.await_that(lambda: not rest or theirs.namespace_exists("gold"), "make its tables")
                for name in ("bronze.posts", "silver.posts"):
                    running.await_that(lambda name=name: name in tables.names(), f"make {name}")
                    foreign.patiently(theirs, name, (foreign.append, foreign.expire, foreign.append, foreign.delete)[turn % 4])
                    did += 1
            events = len(site.topics.events)
            running.await_that(lambda: site.scored() >= events, "score everything")
            assert running.alive() and running.stop() == 0, running.log()
        where = theirs if rest else site.data
        site.finish(where)
        theirs_now = [row for row in tables.rows("bronze.posts", "topic").to_pylist() if row["topic"] == foreign.FOREIGN]
        assert did == 20 and theirs_now, "rows of somebody else must be there, and stay"
    finally:
        if rest:
            clear(theirs)
        tables.close()


# -------------------------------------------------------------------------------------------------------- disks and clocks


@pytest.mark.full
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kafka_mode", [False, True], ids=["embedded", "kafka"])
def test_a_full_disk_is_waited_out(kafka: Kafka, tmp_path: Path, kafka_mode: bool):
    """No file may grow beyond a limit, which is what a full disk is to whoever writes; then there is room again."""
    # On Kafka the catalog's database is the largest file, and SQLite says of nothing why it failed.
    words = "is the disk full?" if kafka_mode else "free some disk space"
    if kafka_mode:
        site = Site(kafka.brokers, tmp_path)
        running = site.start()
        site.produce(500)
        done = lambda: not violations(site.topics, site.data)  # noqa: E731
    else:
        from support.promise import violations as broken

        lines = with_malformed(generate(2000, seed=44, cwd=tmp_path), every=20, seed=44)
        (tmp_path / "posts.jsonl").write_bytes(b"".join(each + b"\n" for each in lines))
        running = Running("--data", tmp_path / "data", "--input", tmp_path / "posts.jsonl", cwd=tmp_path, env=OFTEN)
        done = lambda: not broken(tmp_path / "data", lines, complete=True)  # noqa: E731
    with running:
        running.await_that(lambda: "a commit every" in running.log(), "make its tables")
        room = max(path.stat().st_size for path in (tmp_path / "data").rglob("*") if path.is_file()) + 4096
        resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        running.await_that(lambda: words in running.log(), "find the disk full")
        time.sleep(2)
        assert running.alive(), running.log()
        resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        running.await_that(done, "store everything once there is room", 90)
        assert running.stop() == 0, running.log()
    assert done()


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that steps the clock of whoever loads it."""
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = ROOT / "tests" / "support" / "clock.c"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


class Clock:
    """The clock of the processes that are started with `env`."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.setting = folder / "clock"
        self.setting.write_text("0")
        self.env = {"LD_PRELOAD": str(library), "CLOCK_STEP_FILE": str(self.setting)}

    def set(self, seconds: int) -> None:
        # In one piece: a clock that cannot be read would be another fault.
        new = self.setting.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self.setting)


# S3 refuses who is a quarter of an hour away, so the tables are in a folder here.


@pytest.mark.full
def test_a_clock_that_is_set_by_less_than_a_minute_costs_nothing(kafka: Kafka, clock: Path, tmp_path: Path):
    """Commits are older than those before them, and yet go on."""
    site, set_clock = Site(kafka.brokers, tmp_path), Clock(clock, tmp_path)
    site.produce(50)
    with site.start(**set_clock.env) as running:
        running.await_that(lambda: not violations(site.topics, site.data), "store the first")
        for step in (50, 0):
            site.produce(50)
            set_clock.set(step)
            site.produce(50)
            running.await_that(lambda: not violations(site.topics, site.data), f"store everything at {step:+} s", 60)
        assert running.stop() == 0, running.log()
    site.finish(site.data)


@pytest.mark.full
def test_a_clock_that_is_a_day_behind_is_waited_for(kafka: Kafka, clock: Path, tmp_path: Path):
    """Iceberg takes no snapshot that is older than the last by more than a minute: scoring goes on, the tables wait."""
    site, set_clock = Site(kafka.brokers, tmp_path), Clock(clock, tmp_path)
    site.produce(50)
    with site.start(**set_clock.env) as running:
        running.await_that(lambda: not violations(site.topics, site.data), "store the first")
        set_clock.set(-86_400)
        site.produce(50)
        running.await_that(lambda: "before last snapshot timestamp" in running.log(), "see what is wrong")
        running.await_that(lambda: site.scored() >= len(site.topics.events), "score what has come")
        set_clock.set(0)
        running.await_that(lambda: not violations(site.topics, site.data), "store everything once the clock is right", 60)
        assert running.stop() == 0, running.log()
    site.finish(site.data)


@pytest.mark.full
@pytest.mark.parametrize("stamped", ["by the broker", "by the writer"])
def test_a_clock_that_is_two_hours_ahead_does_not_end_scoring(kafka: Kafka, clock: Path, tmp_path: Path, stamped: str):
    """A topic that is not as `undertone init` makes it refuses what comes from the future; scoring waits until that is over."""
    site, set_clock = Site(kafka.brokers, tmp_path), Clock(clock, tmp_path)
    if stamped == "by the writer":
        site.topics.alter(site.topics.scored, **{"message.timestamp.type": "CreateTime"})
        site.topics.alter(site.topics.dead, **{"message.timestamp.type": "CreateTime"})
    site.produce(50)
    done = lambda: site.scored() >= len(site.topics.events)  # noqa: E731
    with site.start("--roles", "score", **set_clock.env) as running:
        running.await_that(done, "score the first")
        set_clock.set(7200)
        site.produce(50)
        if stamped == "by the writer":
            running.await_that(lambda: "is this machine's clock right?" in running.log(), "see what is wrong")
            set_clock.set(0)
        running.await_that(done, "score everything", 60)
        assert running.stop() == 0, running.log()
    site.finish(site.data)


# ------------------------------------------------------------------------------------------------------ topics that forget


def test_a_topic_that_forgot_what_was_not_read_yet_stops_its_readers(kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    """Retention passed the position: nothing is skipped in silence, and what was written stays as it is."""
    site = Site(kafka.brokers, tmp_path, server.toml(), minio.toml(), keys=minio.keys())
    site.produce(150)
    site.finish(catalog)
    ledger = Ledger(site.topics, catalog)
    site.produce(150)
    ends = {number: max(at for partition, at in site.topics.events if partition == number) + 1 for number in range(3)}
    # All but the last of each partition is gone.
    forget = [TopicPartition(site.topics.raw, number, end - 1) for number, end in ends.items()]
    for answer in site.topics.admin.delete_records(forget).values():
        answer.result(30)
    for role in ("score", "bronze"):
        done = site.once("--roles", role)
        assert done.returncode == 2, done.stderr.decode()
        assert "no longer holds the events" in done.stderr.decode(), done.stderr.decode()
    assert ledger.check() == []
    ledger.close()


@pytest.mark.full
def test_a_topic_that_was_deleted_and_made_again_stops_what_is_fed_from_it(kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    """While it runs: no table takes anything of the other topic for a part of the first."""
    site = Site(kafka.brokers, tmp_path, server.toml(), minio.toml(), keys=minio.keys())
    site.produce(150)
    site.finish(catalog)
    before = dict(site.topics.events)
    with site.start("--roles", "bronze") as running:
        running.await_that(lambda: "sink goes on" in running.log(), "go on")
        site.topics.delete(site.topics.raw)
        time.sleep(1)
        site.topics.make(site.topics.raw, partitions=3)
        site.topics.produce(generate(60, seed=9, cwd=tmp_path))
        site.topics.events = before
        # It looks whether the topic is the same every half minute, and whenever reading fails.
        time.sleep(3)
        running.process.send_signal(signal.SIGTERM)
        running.wait(60)
    done = site.once("--roles", "bronze")
    assert done.returncode == 2 and "made again" in done.stderr.decode(), done.stderr.decode()
    assert_promise(site.topics, catalog)
