#!/usr/bin/env python3
"""Measures Undertone beside Spark Structured Streaming with a pandas UDF and transformers: the same posts, the same broker, each with an
Iceberg table and a SQLite catalog of its own, in turn.

    benches/peers/spark/compare.py [--posts 10000] [--rounds 3] [--rate 40] [--seconds 60]

A round is a backlog, from `posts.raw` to the committed table. Figures are posts per CPU-second of everything that belongs to a contestant
(for Spark the JVM and its Python workers), once it is running and its model is loaded. Spark runs as two workers of one thread and
as one of two; the better stays. Then posts come one by one, and latency is from the broker's timestamp to the commit of the snapshot that
holds the post. Both answer five heads and store an embedding of 384 numbers; in a row of its own Spark answers one head and stores none. Undertone
cleans texts, looks for entities and languages, and writes `posts.scored` besides. Writes benches/results/spark-<instruction sets>.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("UNDERTONE_CACHE") or Path.home() / ".cache" / "undertone")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT / "scripts"), str(ROOT / "tests")]

import pyarrow.parquet as pq  # noqa: E402
from confluent_kafka import Producer  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402
from measure import instruction_sets, kind, processor  # noqa: E402
from pyiceberg.catalog.sql import SqlCatalog  # noqa: E402
from spark_environment import python_and_jars  # noqa: E402

from servers.kafka import Kafka  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
PARTITIONS = 2
# How often Undertone commits while posts come one by one; Spark begins a micro-batch as soon as the last has ended.
COMMIT_INTERVAL = "1s"
# At the beginning of the live part, not counted: whoever has just started is slower.
WARM_SECONDS = 10


@dataclass
class Row:
    name: str
    arrangement: str
    rates: list[float] = field(default_factory=list)
    walls: list[float] = field(default_factory=list)
    rss_mib: float = 0.0
    live_ms: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=40, help="posts a second in the live part")
    parser.add_argument("--seconds", type=int, default=60, help="of the live part; 0 leaves it out")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "sentiment")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "undertone")
    parser.add_argument("--results", type=Path, default=ROOT / "benches" / "results")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    python, jars = python_and_jars(CACHE)
    with tempfile.TemporaryDirectory() as folder, Kafka(Path(folder) / "kafka") as kafka:
        world = World(options, kafka, Path(folder))
        rows = [*compare_spark(world, python, jars), *(ours(world, precision) for precision in ("fp32", "auto", "int8"))]
    report = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "command": "benches/peers/spark/compare.py",
        "processor": processor(),
        "cores": len(cores),
        "instruction_sets": instruction_sets(),
        "posts": options.posts,
        "rounds": options.rounds,
        "live_posts_per_s": options.rate,
        "commit_interval": COMMIT_INTERVAL,
        "rows": [described(row) for row in rows],
    }
    options.results.mkdir(parents=True, exist_ok=True)
    name = f"spark-{kind(report['instruction_sets'])}"
    (options.results / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.results / f"{name}.md").write_text(markdown(report))
    print(markdown(report))


class World:
    """The broker, its topics, and the posts."""

    def __init__(self, options: argparse.Namespace, kafka: Kafka, folder: Path) -> None:
        self.options, self.kafka, self.folder = options, kafka, folder
        self.admin = AdminClient({"bootstrap.servers": kafka.brokers})
        command = [options.binary, "generate", "--seed", "1", "--count", str(options.posts)]
        self.posts = [line for line in subprocess.run(command, check=True, capture_output=True).stdout.splitlines() if is_post(line)]
        self.names = 0
        self.make("backlog", "warm", "empty")
        self.produce("backlog", self.posts)
        self.produce("warm", self.posts[:256])

    def make(self, *names: str) -> None:
        for made in self.admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
            made.result(30)

    def fresh(self, prefix: str) -> str:
        self.names += 1
        name = f"{prefix}{self.names}"
        self.make(name)
        return name

    def produce(self, topic: str, posts: list[bytes], rate: float = 0) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.brokers, "linger.ms": 0 if rate else 50})
        began = time.monotonic()
        for number, post in enumerate(posts):
            if rate:
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
            producer.produce(topic, post, partition=number % PARTITIONS)
            producer.poll(0)
            if number % 10_000 == 9_999:
                producer.flush()
        producer.flush()

    def live(self, topic: str) -> None:
        """Posts one by one, the beginning of which is not counted."""
        wanted = int(self.options.rate * (self.options.seconds + WARM_SECONDS))
        self.produce(topic, (self.posts * (wanted // len(self.posts) + 1))[:wanted], self.options.rate)


def is_post(line: bytes) -> bool:
    """Spark's query would stop at the generator's damaged ones, which are not the matter here."""
    try:
        post = json.loads(line)
    except ValueError:
        return False
    return isinstance(post, dict) and isinstance(post.get("text"), str) and not post.get("deleted") and bool(post["text"].strip())


# ---------------------------------------------------------------------------------------------------------------- Spark


def compare_spark(world: World, python: Path, jars: Path) -> list[Row]:
    tried = []
    for cores, threads in ((2, 1), (1, 2)):
        spark = Spark(world, python, jars, cores, threads)
        tried.append((spark.backlog(), spark))
        spark.close()
        say(f"Spark, {cores} × {threads}: {tried[-1][0]:.1f} posts/CPU-s")
    _, best = max(tried, key=lambda each: each[0])
    rows = []
    for light, name in ((False, "Spark Structured Streaming + pandas UDF + transformers, fp32"), (True, "Spark, one head, no embedding")):
        spark = Spark(world, python, jars, best.cores, best.threads, light)
        row = Row(name, f"{spark.cores} × {spark.threads}")
        for _ in range(world.options.rounds):
            row.rates.append(spark.backlog())
            row.walls.append(world.options.posts / spark.wall)
        row.live_ms = spark.live() if world.options.seconds else []
        row.rss_mib = spark.close()
        rows.append(row)
        say(f"{name}: {statistics.median(row.rates):.1f} posts/CPU-s")
    return rows


class Spark:
    def __init__(self, world: World, python: Path, jars: Path, cores: int, threads: int, light: bool = False) -> None:
        self.world, self.cores, self.threads = world, cores, threads
        self.folder = Path(tempfile.mkdtemp(dir=world.folder))
        command = [str(python), str(HERE / "query.py"), "--brokers", world.kafka.brokers, "--folder", str(self.folder), "--jars", str(jars)]
        command += ["--model", str(world.options.model), "--cores", str(cores), "--threads", str(threads)]
        command += ["--light"] if light else []
        log = (self.folder / "log").open("w")
        variables = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=variables, cwd=self.folder, start_new_session=True
        )
        self.answer()

    def answer(self) -> dict:
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"Spark ended with status {self.process.wait()}:\n" + (self.folder / "log").read_text()[-3000:])

    def tell(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def backlog(self) -> float:
        """Posts per CPU-second."""
        topic = self.world.fresh("backlog")
        self.world.produce(topic, self.world.posts)
        used, began = session_cpu(self.process.pid), time.monotonic()
        self.tell(f"backlog {topic}")
        self.answer()
        self.wall, used = time.monotonic() - began, session_cpu(self.process.pid) - used
        return len(self.world.posts) / used

    def live(self) -> list[float]:
        topic = self.world.fresh("live")
        self.tell(f"live {topic}")
        self.answer()
        self.world.live(topic)
        self.tell("")
        self.answer()
        return latencies(self.folder / "catalog.db", self.folder / "warehouse", f"silver.{topic}")

    def close(self) -> float:
        """Ends it; answers the memory of all its processes, in MiB."""
        rss = session_rss(self.process.pid)
        self.process.stdin.close()
        self.process.wait()
        return rss


# ----------------------------------------------------------------------------------------------------------------- ours


def ours(world: World, precision: str) -> Row:
    row = Row(f"Undertone, {precision if precision != 'auto' else 'default precision'}", "1 × 2")
    start = Undertone(world, precision, "empty").once()
    for _ in range(world.options.rounds):
        run = Undertone(world, precision, "backlog")
        used = run.once()
        row.rates.append(len(world.posts) / (used - start))
        row.walls.append(len(world.posts) / run.wall)
        row.rss_mib = max(row.rss_mib, run.rss_mib)
    if world.options.seconds:
        row.live_ms = Undertone(world, precision, world.fresh("live")).live()
    say(f"{row.name}: {statistics.median(row.rates):.1f} posts/CPU-s")
    return row


class Undertone:
    def __init__(self, world: World, precision: str, topic: str) -> None:
        self.world, self.topic, self.wall, self.rss_mib = world, topic, 0.0, 0.0
        self.folder = Path(tempfile.mkdtemp(dir=world.folder))
        group = world.fresh("group")  # a name that nothing has yet
        config = self.folder / "kafka.toml"
        config.write_text(
            f'[kafka]\nbrokers = "{world.kafka.brokers}"\ngroup = "{group}"\nstart = "earliest"\n'
            f'[kafka.topics]\nraw = "{topic}"\nscored = "{world.fresh("scored")}"\ndead = "{world.fresh("dead")}"\n'
            f'[sinks]\ncommit_interval = "{COMMIT_INTERVAL if topic.startswith("live") else "30s"}"\n'
        )
        self.command = [str(world.options.binary), "run", "--roles", "score,silver", "--config", str(config), "--data", str(self.folder / "data")]
        self.command += ["--model", str(world.options.model), "--precision", precision]

    def once(self) -> float:
        """CPU seconds from start to end."""
        began = time.monotonic()
        with (self.folder / "log").open("w") as log:
            process = subprocess.Popen([*self.command, "--once"], stdout=log, stderr=log)
            _, status, used = os.wait4(process.pid, 0)
        if status != 0:
            raise SystemExit("undertone failed:\n" + (self.folder / "log").read_text()[-3000:])
        self.wall, self.rss_mib = time.monotonic() - began, used.ru_maxrss / 1024
        return used.ru_utime + used.ru_stime

    def live(self) -> list[float]:
        with (self.folder / "log").open("w") as log:
            process = subprocess.Popen(self.command, stdout=log, stderr=log)
        time.sleep(8)
        self.world.live(self.topic)
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        if process.wait() != 0:
            raise SystemExit("undertone failed:\n" + (self.folder / "log").read_text()[-3000:])
        return latencies(self.folder / "data" / "catalog.db", self.folder / "data" / "warehouse", "silver.posts")


# ------------------------------------------------------------------------------------------------------------- measuring


def latencies(catalog: Path, warehouse: Path, name: str) -> list[float]:
    """Milliseconds from the broker's timestamp of each post to the commit of the snapshot that added its row."""
    table = SqlCatalog("undertone", uri=f"sqlite:///{catalog}", warehouse=f"file://{warehouse}").load_table(name)
    committed = {snapshot.snapshot_id: snapshot.timestamp_ms for snapshot in table.snapshots()}
    added: list[tuple[float, float]] = []
    for snapshot in table.snapshots():
        for manifest in snapshot.manifests(table.io):
            if manifest.added_snapshot_id != snapshot.snapshot_id:
                continue
            for entry in manifest.fetch_manifest_entry(table.io):
                path = entry.data_file.file_path.removeprefix("file://").removeprefix("file:")
                times = pq.read_table(path, columns=["ingested_at"])["ingested_at"].to_pylist()
                added += [(when.timestamp() * 1000, committed[snapshot.snapshot_id]) for when in times]
    first = min(when for when, _ in added) + WARM_SECONDS * 1000
    return [commit - when for when, commit in added if when >= first]


def session_of(leader: int) -> list[list[str]]:
    """The fields after the name in /proc/*/stat of every process in the session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            found.append(fields)
    return found


def session_cpu(leader: int) -> float:
    """User and system time of the session's processes, and of their children that have ended."""
    return sum(sum(map(int, fields[11:15])) for fields in session_of(leader)) / TICKS


def session_rss(leader: int) -> float:
    return sum(int(fields[21]) for fields in session_of(leader)) * os.sysconf("SC_PAGE_SIZE") / 2**20


def described(row: Row) -> dict:
    live = sorted(row.live_ms)
    at = lambda share: round(live[min(len(live) - 1, int(share * len(live)))]) if live else None  # noqa: E731
    return {
        "name": row.name,
        "workers_x_threads": row.arrangement,
        "posts_per_cpu_s": statistics.median(row.rates),
        "posts_per_cpu_s_rounds": row.rates,
        "posts_per_s": statistics.median(row.walls),
        "rss_mib": round(row.rss_mib),
        "event_to_table_ms": {"p50": at(0.5), "p99": at(0.99), "posts": len(live)},
    }


def markdown(report: dict) -> str:
    peer = report["rows"][0]["posts_per_cpu_s"]
    lines = [
        f"Kafka to an Iceberg table. {report['processor']}, {report['cores']} cores, broker on the same; {' '.join(report['instruction_sets'])}.",
        f"{report['posts']} posts of `undertone generate`, medians of {report['rounds']} rounds; live: {report['live_posts_per_s']:g} posts a second, "
        f"Undertone commits every {report['commit_interval']}; {report['date']}, `{report['command']}`.",
        "",
        "| | posts per CPU-second | least to most | × the peer | posts/s, start included for Undertone | memory, MiB | event to table, p50 / p99 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        rates, live = row["posts_per_cpu_s_rounds"], row["event_to_table_ms"]
        latency = f"{live['p50'] / 1000:.1f} / {live['p99'] / 1000:.1f} s" if live["posts"] else "–"
        lines.append(
            f"| {row['name']} ({row['workers_x_threads']}) | {row['posts_per_cpu_s']:.0f} | {min(rates):.0f} to {max(rates):.0f} "
            f"| {row['posts_per_cpu_s'] / peer:.2f} | {row['posts_per_s']:.0f} | {row['rss_mib']} | {latency} |"
        )
    return "\n".join(lines) + "\n"


def say(line: str) -> None:
    print(f"peers: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
