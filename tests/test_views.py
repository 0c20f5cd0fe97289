"""The documented views (sinks/sql/duckdb.sql) say what the tables say. test_spark.py asks the same of Spark's."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.posts import generate
from support.process import ROOT, run_once
from support.promise import aggregate, alike
from support.stories import add_run, check_latest, events
from support.tables import TABLES, Tables, duck, duck_scan

SQL = ROOT / "sinks" / "sql"
GOLD = [name for name in TABLES if name.startswith("gold.")]


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with edits, repeats and deletions in it, in several commits, and the rows of another run."""
    folder = tmp_path_factory.mktemp("views")
    lines = generate(150, seed=61, cwd=folder) + events()
    (folder / "posts.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    done = run_once(folder / "data", folder / "posts.jsonl", cwd=folder, env={"UNDERTONE_SINKS__COMMIT_ROWS": "40"})
    assert done.returncode == 0, done.stderr.decode()
    with Tables(folder / "data") as tables:
        add_run(tables, "better")
    return folder / "data"


def test_duckdb_has_the_latest_of_each_post_and_the_totals_of_each_window(streamed: Path) -> None:
    with Tables(streamed) as tables:
        connection = duck()
        for schema in ("silver", "gold"):
            connection.execute(f"CREATE SCHEMA {schema}")
        for name in TABLES[1:]:
            connection.execute(f"CREATE VIEW {name} AS FROM {duck_scan(tables, name)}")
        connection.execute((SQL / "duckdb.sql").read_text())
        silver = tables.rows("silver.posts").to_pylist()
        for run in ("live", "better"):
            connection.execute(f"CREATE OR REPLACE VIEW silver.current_run AS SELECT '{run}' AS run")
            check_latest(connection.sql("SELECT uid, id, text, run FROM silver.latest").fetchall(), silver, run)
            for name in GOLD:
                tag = "tag, " if ".tags_" in name else ""
                keys = f"window_start, event_day, run, source, language, label, {tag}"
                query = f"SELECT {keys} posts, polarity_posts, polarity_sum, polarity_sum_squares, polarity_mean FROM {name}_totals"
                rows = [tuple(row.values()) for row in connection.sql(query).to_arrow_table().to_pylist()]
                check_totals(rows, tables, name, run)
        summed = "sum(polarity_deviation * polarity_deviation * polarity_posts)"
        square = "polarity - avg(polarity) OVER (PARTITION BY date_trunc('hour', created_at), event_day, source, language, sentiment)"
        wanted = f"SELECT sum(d * d) FROM (SELECT {square} AS d FROM silver.posts WHERE run = 'better' AND NOT deleted)"
        (spread,) = connection.sql(f"SELECT {summed} FROM gold.sentiment_1h_totals").fetchone()
        assert spread == pytest.approx(connection.sql(wanted).fetchone()[0]) and spread > 0


def check_totals(rows: list[tuple], tables: Tables, name: str, run: str) -> None:
    silver = tables.rows("silver.posts")
    wanted = aggregate(silver.filter([each == run for each in silver["run"].to_pylist()]), name)
    got = {row[:-5]: row[-5:-1] for row in rows}
    assert len(got) == len(rows), f"{name}_totals has a window twice"
    assert got.keys() == wanted.keys(), name
    for key, sums in got.items():
        assert alike(sums, wanted[key]), (name, key)
    for *_, polarity_posts, polarity_sum, _, mean in rows:
        assert mean is None if not polarity_posts else abs(mean - polarity_sum / polarity_posts) < 1e-9
