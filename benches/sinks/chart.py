#!/usr/bin/env python3
"""Measures a day's chart from ClickHouse while it holds ten million posts.

    benches/sinks/chart.py [--posts 10000000] [--days 30] [--rounds 20] [--json FILE]

`undertone init` makes the table. The rows are made by ClickHouse itself, spread over the days, sources, languages, labels and tags; one in fifty
is written twice, and one in a thousand is deleted, in parts of their own that nothing has merged, so that FINAL has work to do. Then the
gateway is asked, over HTTP: a day by the hour and a day by the minute, all of it and of one source, and its top tags. Every answer is
compared with a GROUP BY over the latest versions, once. The engine is chDB behind Python (tests/servers), on the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
os.environ.setdefault("UNDERTONE_BIN", str(ROOT / "target" / "release" / "undertone"))
os.environ.setdefault("UNDERTONE_TEST_MODEL", str(ROOT / "models" / "sentiment"))

from servers.clickhouse import ClickHouse  # noqa: E402
from servers.kafka import Kafka  # noqa: E402
from support.process import Running, undertone  # noqa: E402
from support.topics import Topics  # noqa: E402

FIRST = datetime(2026, 5, 1, tzinfo=timezone.utc)
AT_ONCE = 1_000_000
# What a row is, from its number: the same for each of its versions, but for the label and what follows from it.
ROW = """
    toUUID(concat(substring(h, 1, 8), '-', substring(h, 9, 4), '-5', substring(h, 14, 3), '-8', substring(h, 18, 3), '-', substring(h, 21, 12))) AS uid,
    toDate32(created_at) AS day, {version} AS version, {deleted} AS is_deleted,
    arrayElement(['reddit', 'x', 'forum', 'webhook'], number % 4 + 1) AS source, toString(number) AS id,
    fromUnixTimestamp64Micro(toInt64({first} + cityHash64(number) % {span}), 'UTC') AS created_at, NULL AS edited_at,
    concat('author', toString(number % 50000)) AS author, NULL AS url, arrayElement(['eng', 'deu', 'spa', ''], number % 4 + 1) AS language,
    concat('the kettle of number ', toString(number), ' boils and nobody is there to say how it was') AS text,
    [concat('tag', toString(number % 997)), concat('topic', toString(number % 31))] AS tags,
    arrayElement(['negative', 'neutral', 'positive'], (number + {version}) % 3 + 1) AS label, toFloat64((number + {version}) % 3) - 1 AS polarity,
    toFloat32(0.75) AS confidence, map('sentiment.negative', toFloat32(0.25), 'sentiment.positive', toFloat32(0.75)) AS scores, 'bench' AS model,
    created_at AS ingested_at, created_at AS scored_at
"""
QUESTIONS = {
    "a day by the hour": ("series", {"window": "1h"}),
    "a day by the minute": ("series", {"window": "1m"}),
    "a day by the minute, one source": ("series", {"window": "1m", "source": "reddit"}),
    "a day's top tags": ("tags", {"limit": "20"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as name, ClickHouse(Path(name) / "clickhouse") as server:
        config = Path(name) / "undertone.toml"
        make(Path(name), config, server)
        began = time.monotonic()
        fill(server, options)
        print(f"{options.posts:,} posts are stored after {time.monotonic() - began:.0f} s", file=sys.stderr)
        report = {
            "posts": server.query("SELECT count() AS n FROM posts FINAL")[0]["n"],
            "rows": server.query("SELECT count() AS n FROM posts")[0]["n"],
            "parts": server.query("SELECT count() AS n FROM system.parts WHERE table = 'posts' AND active")[0]["n"],
            "days": options.days,
            "cores": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 1),
            "ms": {},
        }
        with Running("--roles", "gateway", "--config", config, "--data", Path(name) / "data", cwd=Path(name)) as running:
            running.await_ready()
            for question, (path, params) in QUESTIONS.items():
                report["ms"][question] = ask(running, server, path, params, options)
                print(question, json.dumps(report["ms"][question]), flush=True)
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def make(folder: Path, config: Path, server: ClickHouse) -> None:
    """The table as `undertone init` makes it, which wants a broker for the role."""
    config.write_text(server.toml())
    with Kafka(folder / "kafka") as kafka:
        env = Topics(kafka.brokers).settings()
        done = undertone("init", "--roles", "clickhouse", "--config", config, "--data", folder / "data", cwd=folder, env=env)
    if done.returncode != 0:
        raise SystemExit(done.stderr.decode())


def fill(server: ClickHouse, options: argparse.Namespace) -> None:
    first, span = int(FIRST.timestamp() * 1e6), options.days * 86_400_000_000

    def insert(numbers: str, version: int, deleted: int) -> None:
        row = ROW.format(version=version, deleted=deleted, first=first, span=span)
        server.query(f"INSERT INTO posts SELECT {row} FROM (SELECT number, lower(hex(MD5(toString(number)))) AS h FROM {numbers})")

    for start in range(0, options.posts, AT_ONCE):
        insert(f"numbers({start}, {min(AT_ONCE, options.posts - start)})", 1, 0)
    server.query("SYSTEM STOP MERGES posts")
    insert(f"numbers(0, {options.posts}) WHERE number % 50 = 0", 2, 0)
    insert(f"numbers(0, {options.posts}) WHERE number % 1000 = 7", 3, 1)


def ask(running: Running, server: ClickHouse, path: str, params: dict, options: argparse.Namespace) -> dict:
    """Each time another day."""
    took = []
    for number in range(options.rounds):
        day = FIRST + timedelta(days=number % options.days)
        times = {"from": day.isoformat().replace("+00:00", "Z"), "to": (day + timedelta(days=1)).isoformat().replace("+00:00", "Z")}
        began = time.monotonic()
        answer = running.get(f"/v1/query/{path}", params=params | times)
        took.append((time.monotonic() - began) * 1000)
        if answer.status_code != 200:
            raise SystemExit(answer.text)
        if number == 0:
            compare(server, path, params, day, answer.json())
    took.sort()
    return {"p50": round(statistics.median(took)), "max": round(took[-1])}


def compare(server: ClickHouse, path: str, params: dict, day: datetime, answer: dict) -> None:
    """Posts of the day by brute force: the greatest version of each uid, unless it is a deletion."""
    only = f"AND source = '{params['source']}'" if "source" in params else ""
    latest = f"""SELECT uid, argMax(is_deleted, version) AS gone, argMax(polarity, version) AS p, argMax(tags, version) AS t
        FROM posts WHERE day = '{day:%Y-%m-%d}' {only} GROUP BY uid HAVING gone = 0"""
    if path == "series":
        wanted = server.query(f"SELECT count() AS n, avg(p) AS mean FROM ({latest})")[0]
        points = answer["points"]
        found = sum(point["posts"] for point in points)
        mean = sum(point["posts"] * point["mean_polarity"] for point in points) / found
        assert found == wanted["n"] and abs(mean - wanted["mean"]) < 1e-9, (found, mean, wanted)
    else:
        counts = {row["tag"]: row["n"] for row in server.query(f"SELECT arrayJoin(t) AS tag, count() AS n FROM ({latest}) GROUP BY tag")}
        for tag in answer["tags"]:
            assert counts[tag["tag"]] == tag["posts"], (tag, counts[tag["tag"]])
        assert len(answer["tags"]) == int(params["limit"])


if __name__ == "__main__":
    main()
