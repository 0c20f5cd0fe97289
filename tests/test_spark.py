"""What is written for Spark works in Spark: the documented views, and compaction beside a running stream.

Spark is 400 MB and half a minute to start, so these run only where UNDERTONE_SPARK names a folder with it: `bin/python` that has
pyspark 4.1, and `jars/` with Iceberg's runtime for it. `make test-spark` does.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog
from servers.iceberg_rest import IcebergRest
from support.posts import generate
from support.process import ROOT, Running, environment, free_ports, undertone
from support.promise import aggregate, check_sums, dead_letters
from support.stories import add_run, check_latest, events
from support.tables import TABLES, Tables

SPARK = Path(os.environ.get("UNDERTONE_SPARK") or "/nowhere")
SQL = ROOT / "sinks" / "sql"
OFTEN = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "300ms", "UNDERTONE_SINKS__COMMIT_ROWS": "40"}
RUNS = ("live", "better")

pytestmark = [
    pytest.mark.skipif(not SPARK.is_dir(), reason="UNDERTONE_SPARK names no folder with Spark"),
    pytest.mark.timeout(400),
]

SESSION = """
import json, sys
from pyspark.sql import SparkSession
jars, uri, *files = sys.argv[1:]
builder = SparkSession.builder.master("local[1]")
settings = {
    "spark.jars": jars, "spark.ui.enabled": "false", "spark.sql.session.timeZone": "UTC", "spark.sql.shuffle.partitions": "1",
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog", "spark.sql.catalog.lake.type": "rest", "spark.sql.catalog.lake.uri": uri,
}
for key, value in settings.items():
    builder = builder.config(key, value)
spark = builder.getOrCreate()
spark.sql("USE lake")
for file in files:
    text = "\\n".join(line.split("--")[0] for line in open(file))
    for statement in filter(str.strip, text.split(";")):
        rows = spark.sql(statement).collect()
        if rows and "rewritten_data_files_count" in rows[0].asDict():
            print("REWROTE", rows[0]["rewritten_data_files_count"])
found = {}
for run in ("live", "better"):
    spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW silver_current_run AS SELECT '{run}' AS run")
    found[run] = {"latest": [list(row) for row in spark.sql("SELECT uid, id, text, run FROM silver_latest").collect()]}
    for name in ("sentiment_1m", "sentiment_1h", "tags_1m", "tags_1h"):
        sums = "count(*), sum(posts), sum(polarity_posts), sum(polarity_sum), sum(polarity_mean * polarity_posts)"
        found[run][name] = list(spark.sql(f"SELECT {sums} FROM gold_{name}_totals").collect()[0])
print("FOUND", json.dumps(found))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IcebergRest]:
    with IcebergRest(tmp_path_factory.mktemp("catalog")) as running:
        yield running


def spark(server: IcebergRest, cwd: Path, *files: str) -> list[str]:
    """Runs SQL files, then asks the views."""
    jars = ",".join(map(str, sorted((SPARK / "jars").glob("iceberg-spark-runtime*.jar"))))
    command = [SPARK / "bin" / "python", "-c", SESSION, jars, server.uri, *(SQL / file for file in files)]
    env = environment() | {"SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)
    said = "\n".join(line for line in done.stderr.splitlines() if not line.strip().startswith("at "))
    assert done.returncode == 0, done.stdout[-2000:] + said[-4000:]
    return done.stdout.splitlines()


def test_spark_compacts_beside_a_stream_and_has_the_latest_and_the_totals(server: IcebergRest, tmp_path: Path) -> None:
    config = tmp_path / "u.toml"
    config.write_text(server.toml() + f'warehouse = "{server.warehouse}"\n')
    lines = generate(300, seed=62, cwd=tmp_path) + events()
    (tmp_path / "first.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    http, grpc = free_ports(2)
    addresses = ("--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
    done = undertone("run", "--once", "--config", config, "--input", "first.jsonl", "--data", "data", *addresses, cwd=tmp_path, env=OFTEN)
    assert done.returncode == 0, done.stderr.decode()
    tables = Tables(load_catalog("rest", **server.properties()))
    add_run(tables, "better")
    before = {name: tables.rows(name).num_rows for name in TABLES}

    # A tenth of the usual time between commits; Spark tries again what met one of them.
    live = {"UNDERTONE_SINKS__COMMIT_INTERVAL": "3s", "UNDERTONE_GENERATOR__BACKFILL": "0s", "UNDERTONE_GENERATOR__RATE": "20.0"}
    with Running("--config", config, "--data", "data", cwd=tmp_path, env=live) as running:
        running.await_ready()
        said = spark(server, tmp_path, "compact.spark.sql", "spark.sql")
        assert running.alive() and '"waiting":"' not in running.get("/v1/overview").text, running.log()
        assert running.stop() == 0, running.log()
    rewrote = [int(line.split()[1]) for line in said if line.startswith("REWROTE")]
    assert len(rewrote) == len(TABLES) and all(count > 5 for count in rewrote), said

    offsets = tables.rows("bronze.posts", "offset")["offset"].to_pylist()
    assert sorted(offsets) == list(range(len(offsets))) and len(offsets) > before["bronze.posts"] + 20
    silver = tables.rows("silver.posts", "offset", "run").to_pylist()
    # The generator damages a post now and then.
    dead = [letter["origin"]["offset"] for letter in dead_letters(tmp_path / "data")]
    assert sorted([*dead, *(row["offset"] for row in silver if row["run"] == "live")]) == sorted(offsets)
    assert not check_sums(tables)

    found = json.loads(next(line for line in said if line.startswith("FOUND")).removeprefix("FOUND"))
    # The stream went on, so that of its run only what was there before is known; of the other everything is.
    rows = tables.rows("silver.posts").to_pylist()
    check_latest([tuple(row) for row in found["better"]["latest"]], rows, "better")
    assert {row[3] for row in found["live"]["latest"]} == {"live"} and len(found["live"]["latest"]) >= len(found["better"]["latest"])
    better = tables.rows("silver.posts")
    better = better.filter([run == "better" for run in better["run"].to_pylist()])
    for name in TABLES[2:]:
        wanted = aggregate(better, name)
        windows, posts, with_polarity, polarity, again = found["better"][name.removeprefix("gold.")]
        assert (windows, posts, with_polarity) == (len(wanted), sum(s[0] for s in wanted.values()), sum(s[1] for s in wanted.values())), name
        assert polarity == pytest.approx(sum(s[2] for s in wanted.values())) == pytest.approx(again), name
