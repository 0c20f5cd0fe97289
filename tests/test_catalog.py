"""The tables in other people's catalogs and object stores: Kafka, Apache's REST catalog and MinIO, each the real one.

What is written is read back with PyIceberg. Answers get lost on the way (support/proxy.py), tokens end, keys are wrong:
the promise holds, or the program says what is wrong and how to mend it, and never what the secret was.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from servers.iceberg_rest import IcebergRest
from servers.kafka import Kafka
from servers.minio import BUCKET, MinIO
from support.catalog import PYARROW, catalog, server  # noqa: F401
from support.posts import generate, with_malformed
from support.process import Running, free_ports, undertone
from support.proxy import TOKENS, Proxy, Request
from support.tables import POSITION, TABLES, Tables
from support.topics import Topics, assert_promise, violations

OFTEN = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "300ms", "UNDERTONE_SINKS__COMMIT_ROWS": "200"}
# A dead member is missed after a second instead of 45.
IMPATIENT = '[kafka.client]\n"session.timeout.ms" = 1500\n"heartbeat.interval.ms" = 300\n'


class Site:
    """A configuration file and the environment beside it."""

    def __init__(self, folder: Path, minio: MinIO, *sections: str) -> None:
        self.folder = folder
        self.path = folder / "u.toml"
        self.path.write_text("\n".join(sections))
        # A proxy of the machine has nothing to do with 127.0.0.1.
        self.env = minio.keys() | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def call(self, command: str, *args: object, timeout: float = 110, **env: str) -> subprocess.CompletedProcess[bytes]:
        http, grpc = free_ports(2)
        addresses = () if command == "init" else ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
        return undertone(command, "--config", self.path, *addresses, *args, cwd=self.folder, env=self.env | env, timeout=timeout)

    def run_once(self, topics: Topics, *args: object, **env: str) -> subprocess.CompletedProcess[bytes]:
        return self.call("run", "--once", *args, **(topics.settings(**OFTEN) | env))


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stdout.decode() + done.stderr.decode()


def assert_done(done: subprocess.CompletedProcess[bytes]) -> None:
    assert done.returncode == 0, said(done)


def assert_refused(done: subprocess.CompletedProcess[bytes], *words: str) -> None:
    assert done.returncode == 2, said(done)
    for word in words:
        assert word in said(done), f"{word!r} is not in: {said(done)}"


def is_commit(request: Request) -> bool:
    """Whether it asks for a change of a table that is there."""
    return request.method == "POST" and "/tables/" in request.path


def rest(uri: str, *lines: str) -> str:
    return "\n".join(["[catalog]", 'kind = "rest"', f'uri = "{uri}"', *lines, ""])


def positions(catalog: Catalog, table: str = "bronze.posts") -> list[str]:
    return [key for key in catalog.load_table(table).properties if key.startswith(POSITION)]


# ------------------------------------------------------------------------------------------------------- what is written


def test_events_are_rows_of_the_catalog_once_each(kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    site, topics = Site(tmp_path, minio, server.toml(), minio.toml()), Topics(kafka.brokers, partitions=3)
    topics.produce(with_malformed(generate(400, seed=21, cwd=tmp_path), every=20, seed=21))
    assert_done(site.run_once(topics))
    assert_promise(topics, catalog)
    table = catalog.load_table("silver.posts")
    assert table.location().startswith(f"s3://{BUCKET}/"), table.location()
    assert not (tmp_path / "data").exists(), "with Kafka and a REST catalog nothing is left for a data folder"

    topics.produce(generate(100, seed=22, cwd=tmp_path))
    assert_done(site.run_once(topics))
    assert_promise(topics, catalog)
    assert_queried(site, catalog)


def assert_queried(site: Site, catalog: Catalog) -> None:
    """A gateway that writes no tables answers from the catalog's. Without their keys it starts, and asks them nothing."""
    with Running("--config", site.path, "--roles", "gateway", cwd=site.folder, env=site.env) as running:
        answer = running.await_ready().get("/v1/query/series", params={"window": "1h"}).json()
    assert answer["store"] == "tables", answer
    silver = catalog.load_table("silver.posts").scan(selected_fields=("created_at", "deleted")).to_arrow().to_pylist()
    from_, to = (datetime.fromisoformat(answer[end].replace("Z", "+00:00")) for end in ("from", "to"))
    counted = [row for row in silver if from_ <= row["created_at"] < to and not row["deleted"]]
    assert sum(point["posts"] for point in answer["points"]) == len(counted) > 300
    with Running("--config", site.path, "--roles", "gateway", cwd=site.folder) as running:
        refused = running.await_ready().get("/v1/query/series")
        assert (refused.status_code, refused.json()["type"]) == (404, "/problems/store-not-configured")
        assert "queries do not ask this store" in running.log()


def test_several_processes_write_the_same_tables(kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    site, topics = Site(tmp_path, minio, server.toml(), minio.toml()), Topics(kafka.brokers, partitions=4)
    topics.produce(with_malformed(generate(600, seed=23, cwd=tmp_path), every=20, seed=23))
    assert_done(site.run_once(topics, "--roles", "score"))
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(site.run_once, topics, "--roles", roles) for roles in ("bronze,silver,gold", "silver,gold", "bronze,gold")]
        for run in runs:
            assert_done(run.result())
    assert_promise(topics, catalog)


def test_a_sqlite_catalog_may_have_its_tables_in_the_object_store(minio: MinIO, tmp_path: Path):
    site = Site(tmp_path, minio, f'[catalog]\nwarehouse = "s3://{BUCKET}/from-sqlite/"\n', minio.toml())
    lines = generate(150, seed=24, cwd=tmp_path)
    (tmp_path / "posts.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    assert_done(site.call("run", "--once", "--input", "posts.jsonl", "--data", "data", **OFTEN))
    uri = f"sqlite:///{tmp_path}/data/catalog.db"
    with Tables(SqlCatalog("undertone", uri=uri, init_catalog_tables="false", **minio.properties(), **PYARROW)) as tables:
        assert tables.load("bronze.posts").location() == f"s3://{BUCKET}/from-sqlite/bronze/posts"
        assert sorted(tables.rows("bronze.posts", "offset")["offset"].to_pylist()) == list(range(len(lines)))
        assert [tables.position(name) for name in TABLES] == [len(lines)] * len(TABLES)
    checked = site.call("check", "--data", "data", "--input", "posts.jsonl")
    assert checked.returncode == 0 and minio.endpoint in said(checked), said(checked)


def test_a_rest_catalog_may_have_its_tables_in_a_folder(kafka: Kafka, minio: MinIO, tmp_path: Path):
    topics = Topics(kafka.brokers)
    topics.produce(generate(100, seed=25, cwd=tmp_path))
    with IcebergRest(tmp_path / "catalog") as server:
        site = Site(tmp_path, minio, server.toml() + f'warehouse = "{server.warehouse}"\n')
        assert_done(site.run_once(topics))
        assert_promise(topics, load_catalog("rest", **server.properties(), **PYARROW))
        # Another folder than the one that may be written to.
        elsewhere = Site(tmp_path, minio, server.toml() + f'warehouse = "file://{tmp_path}/elsewhere"\n')
        assert_refused(elsewhere.call("init"), "bronze.posts", "elsewhere", "catalog.warehouse")


# ------------------------------------------------------------------------------------------------- what gets lost, and kills


def test_commits_whose_answers_are_lost_count_once(kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    topics = Topics(kafka.brokers)
    topics.produce(with_malformed(generate(400, seed=26, cwd=tmp_path), every=20, seed=26))
    with Proxy(server.uri) as proxy:
        proxy.lose(is_commit, times=8)
        proxy.repeat(is_commit, times=4)
        site = Site(tmp_path, minio, rest(proxy.uri), minio.toml())
        assert_done(site.run_once(topics))
        lost = [request for request in proxy.lost() if request.status == 200]
        refused = [request for request in proxy.requests if is_commit(request) and request.status == 409]
        assert len(lost) >= 4, "a commit's answer must have been lost that had happened"
        assert len(refused) >= 1, "a commit must have been refused because it had happened already"
    assert_promise(topics, catalog)


def test_without_the_look_at_the_positions_a_lost_answer_doubles_rows(
    kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path
):
    """The test before can fail: this is what it would see."""
    topics = Topics(kafka.brokers)
    topics.produce(generate(100, seed=27, cwd=tmp_path))
    with Proxy(server.uri) as proxy:
        site = Site(tmp_path, minio, rest(proxy.uri), minio.toml())
        assert_done(site.call("init", **topics.settings()))
        # The first commit of each sink only says where its partitions begin.
        proxy.lose(lambda request: is_commit(request) and b'"total-records"' in request.body and b'"added-records"' in request.body, times=6)
        assert_done(site.run_once(topics, UNDERTONE_SABOTAGE="no-position-check"))
    found = violations(topics, catalog)
    assert any("doubled" in violation or "counts" in violation for violation in found), found


def test_objects_whose_uploads_are_not_answered_are_there_once(kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    topics = Topics(kafka.brokers)
    topics.produce(generate(200, seed=28, cwd=tmp_path))
    with Proxy(minio.endpoint) as proxy:
        proxy.lose(lambda request: request.method == "PUT" and request.path.endswith(".parquet"), times=5)
        proxy.lose(lambda request: request.method == "PUT" and request.path.endswith(".avro"), times=5)
        site = Site(tmp_path, minio, server.toml(), minio.toml().replace(minio.endpoint, proxy.uri))
        assert_done(site.run_once(topics))
        assert len([request for request in proxy.lost() if request.status == 200]) == 10
    assert_promise(topics, catalog)


@pytest.mark.parametrize("point", ["sink.files-closed@3", "sink.committed@2"])
def test_killed_in_a_commit_it_goes_on_from_the_table(
    kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path, point: str
):
    site, topics = Site(tmp_path, minio, server.toml(), minio.toml(), IMPATIENT), Topics(kafka.brokers)
    topics.produce(generate(300, seed=29, cwd=tmp_path))
    name, _, visit = point.partition("@")
    stall = {"UNDERTONE_FAILPOINTS": f"{name}=stall@{visit}", "UNDERTONE_FAILPOINT_MARKER": str(tmp_path / "stalled")}
    with Running("--config", site.path, cwd=tmp_path, env=topics.settings(**OFTEN) | site.env | stall) as running:
        running.await_file(tmp_path / "stalled")
        running.kill()
    assert_done(site.run_once(topics))
    assert_promise(topics, catalog)


def test_a_catalog_that_goes_away_is_waited_for(kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    site, topics = Site(tmp_path, minio, server.toml(), minio.toml()), Topics(kafka.brokers)
    with Running("--config", site.path, cwd=tmp_path, env=topics.settings(**OFTEN) | site.env) as running:
        running.await_ready()
        server.kill()
        topics.produce(generate(100, seed=30, cwd=tmp_path))
        running.await_that(lambda: "catalog does not answer" in running.get("/readyz").text + running.log(), "wait for the catalog")
        server.start()
        running.await_that(lambda: not violations(topics, catalog), "store everything")
        assert running.stop() == 0, running.log()
    assert_promise(topics, catalog)


# ------------------------------------------------------------------------------------------------- who asks, and over what


def test_a_wrong_token_is_refused_with_words_and_a_right_one_is_not(
    kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path
):
    topics = Topics(kafka.brokers)
    topics.produce(generate(60, seed=31, cwd=tmp_path))
    with Proxy(server.uri) as proxy:
        proxy.tokens = {"the-right-token"}
        site = Site(tmp_path, minio, rest(proxy.uri, 'token_env = "CATALOG_TOKEN"'), minio.toml())
        for command in ("check", "init"):
            done = site.call(command, CATALOG_TOKEN="a-wrong-token", **topics.settings())
            assert_refused(done, "refuses the token", "CATALOG_TOKEN", proxy.uri, "the token is not one of ours")
            assert "a-wrong-token" not in said(done)
        assert_refused(site.run_once(topics, CATALOG_TOKEN="a-wrong-token"), "refuses the token")
        assert_refused(site.call("init", **topics.settings()), "CATALOG_TOKEN", "is not set")
        anybody = Site(tmp_path, minio, rest(proxy.uri), minio.toml())
        assert_refused(anybody.call("init", **topics.settings()), "wants to know who asks", "catalog.token_env")

        site = Site(tmp_path, minio, rest(proxy.uri, 'token_env = "CATALOG_TOKEN"'), minio.toml())
        done = site.run_once(topics, CATALOG_TOKEN="the-right-token", UNDERTONE_LOG="trace,librdkafka=info")
        assert_done(done)
        for secret in ("the-right-token", minio.secret_key):
            assert secret not in said(done), "a secret is in the log"
    assert_promise(topics, catalog)


def test_a_client_gets_its_tokens_and_new_ones_when_they_end(
    kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path
):
    topics = Topics(kafka.brokers)
    topics.produce(generate(200, seed=32, cwd=tmp_path))
    with Proxy(server.uri) as proxy:
        proxy.clients, proxy.token_uses = {"undertone": "the-client-secret"}, 13
        site = Site(tmp_path, minio, rest(proxy.uri), "[catalog.oauth2]", minio.toml())
        client = {"UNDERTONE_CATALOG_CLIENT_ID": "undertone"}
        done = site.call("init", UNDERTONE_CATALOG_CLIENT_SECRET="a-wrong-secret", **client, **topics.settings())
        assert_refused(done, "refuses the client's id or secret", "UNDERTONE_CATALOG_CLIENT_SECRET", "no client of ours")
        assert "a-wrong-secret" not in said(done)
        done = site.run_once(topics, UNDERTONE_CATALOG_CLIENT_SECRET="the-client-secret", **client)
        assert_done(done)
        assert "the-client-secret" not in said(done)
        given = [request for request in proxy.requests if request.path == TOKENS and request.status == 200]
        assert len(given) >= 3, "tokens must have ended in the middle"
    assert_promise(topics, catalog)


def test_tls_with_an_authority_of_our_own(server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    authority = Authority(tmp_path)
    certificate, key = authority.certificate("127.0.0.1")
    with Proxy(server.uri, certificate, key) as proxy, Proxy(minio.endpoint, certificate, key) as store:
        secured = minio.toml().replace(minio.endpoint, store.uri)
        trusting = Site(tmp_path, minio, rest(proxy.uri, f'ca = "{authority.path}"'), secured, f'ca = "{authority.path}"')
        assert_done(trusting.call("init"))
        assert store.requests, "the object store was tried out"
        doubting = Site(tmp_path, minio, rest(proxy.uri), secured)
        assert_refused(doubting.call("init"), "certificate is not trusted", "catalog.ca")
        half = Site(tmp_path, minio, rest(proxy.uri, f'ca = "{authority.path}"'), secured)
        assert_refused(half.call("init"), "certificate is not trusted", "storage.s3.ca")


class Authority:
    """A certificate authority of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.key = folder, folder / "ca.pem", folder / "ca.key"
        subject = ("-subj", "/CN=an authority of the tests", "-addext", "basicConstraints=critical,CA:TRUE")
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                     "-keyout", self.key, "-out", self.path, *subject)  # fmt: skip

    def certificate(self, address: str) -> tuple[Path, Path]:
        certificate, key, request, more = (self.folder / f"server.{end}" for end in ("pem", "key", "csr", "ext"))
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                     "-keyout", key, "-out", request, "-subj", f"/CN={address}")  # fmt: skip
        more.write_text(f"subjectAltName=IP:{address}\nbasicConstraints=CA:FALSE\n")
        self.openssl("x509", "-req", "-in", request, "-CA", self.path, "-CAkey", self.key, "-CAcreateserial", "-days", "2",
                     "-out", certificate, "-extfile", more)  # fmt: skip
        return certificate, key

    def openssl(self, *args: object) -> None:
        done = subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_wrong_keys_are_refused_with_words_and_nothing_is_lost(
    kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path
):
    site, topics = Site(tmp_path, minio, server.toml(), minio.toml()), Topics(kafka.brokers)
    topics.produce(generate(80, seed=33, cwd=tmp_path))
    wrong = {"AWS_SECRET_ACCESS_KEY": "not-the-secret-key"}
    for command in ("init", "check"):
        done = site.call(command, **wrong, **topics.settings())
        assert_refused(done, "refuses the keys", "AWS_SECRET_ACCESS_KEY", minio.endpoint)
        assert "not-the-secret-key" not in said(done)
    assert_refused(site.run_once(topics, AWS_ACCESS_KEY_ID="nobody"), "refuses the keys", "AWS_ACCESS_KEY_ID")
    assert not positions(catalog), "nothing was committed"
    assert_refused(site.call("init", **(topics.settings() | {"AWS_ACCESS_KEY_ID": ""})), "AWS_ACCESS_KEY_ID", "not set")
    assert_done(site.run_once(topics))
    assert_promise(topics, catalog)


def test_keys_that_are_taken_back_stop_the_tables_with_words_and_nothing_is_lost(
    kafka: Kafka, server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path
):
    topics = Topics(kafka.brokers)
    with Proxy(minio.endpoint) as proxy:
        site = Site(tmp_path, minio, server.toml(), minio.toml().replace(minio.endpoint, proxy.uri), IMPATIENT)
        with Running("--config", site.path, cwd=tmp_path, env=topics.settings(**OFTEN) | site.env) as running:
            running.await_ready()
            topics.produce(generate(60, seed=34, cwd=tmp_path))
            running.await_that(lambda: not violations(topics, catalog), "store the first events")
            proxy.refuses = lambda request: request.method == "PUT"
            topics.produce(generate(60, seed=35, cwd=tmp_path))
            running.await_that(lambda: "refuses the keys" in running.get("/readyz").text, "say that keys are refused")
            assert "the key was taken back" in running.get("/readyz").text
            assert running.stop() == 2, running.log()
        proxy.refuses = lambda request: False
        assert_done(site.run_once(topics))
    assert_promise(topics, catalog)


def test_a_bucket_that_is_not_there_is_named(minio: MinIO, tmp_path: Path):
    site = Site(tmp_path, minio, '[catalog]\nwarehouse = "s3://no-such-bucket/w"\n', minio.toml())
    assert_refused(site.call("init", "--data", "data"), "s3://no-such-bucket/w", "make the bucket", "NoSuchBucket")


# -------------------------------------------------------------------------------------------------- what init and check say


def test_init_makes_the_tables_and_check_looks_at_them(server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    site = Site(tmp_path, minio, server.toml(), minio.toml())
    before = site.call("check")
    assert_done(before)
    assert "bronze.posts is not there" in said(before) and "undertone init" in said(before)
    assert not catalog.namespace_exists("bronze"), "check makes nothing"

    made, again, after = site.call("init"), site.call("init"), site.call("check")
    for done in (made, again, after):
        assert_done(done)
    for name in TABLES:
        assert f"made    table {name}" in said(made) and f"there   table {name}" in said(again)
        assert catalog.table_exists(name)
    assert server.uri in said(after) and "6 tables" in said(after) and minio.endpoint in said(after)


def test_a_table_of_another_shape_is_refused_and_left_alone(server: IcebergRest, minio: MinIO, catalog: Catalog, tmp_path: Path):
    site = Site(tmp_path, minio, server.toml(), minio.toml())
    assert_done(site.call("init"))
    ours = catalog.load_table("silver.posts")
    schema = ours.schema()
    catalog.drop_table("silver.posts")
    theirs = catalog.create_table("silver.posts", schema)  # the same columns, and no partitions
    for command in ("init", "check", "run"):
        done = site.call(command)
        assert_refused(done, "silver.posts", "partitioned by [] instead of", "move the table away")
    catalog.drop_table("silver.posts")
    theirs = catalog.create_table("silver.posts", pa.schema([("id", pa.int64())]))
    assert_refused(site.call("init"), "silver.posts", "foreign column id", "missing column")
    assert catalog.load_table("silver.posts").metadata_location == theirs.metadata_location


def test_a_catalog_that_is_not_there_is_named_with_the_mend(minio: MinIO, tmp_path: Path):
    (port,) = free_ports(1)
    site = Site(tmp_path, minio, rest(f"http://127.0.0.1:{port}"), minio.toml())
    for command in ("init", "check"):
        assert_refused(site.call(command), "does not answer", f"http://127.0.0.1:{port}", "catalog.uri")
    # Something else answers there.
    site = Site(tmp_path, minio, rest(minio.endpoint), minio.toml())
    assert_refused(site.call("init"), minio.endpoint, "catalog.uri")
