#!/usr/bin/env python3
"""Measures each sink of the latest alone: from `posts.scored` on a real broker into its store, and into one that swallows everything.

    benches/sinks/measure.py [--posts 100000] [--rounds 3] [--sinks qdrant,opensearch,clickhouse] [--json FILE] [--record perf.data]

A round is `undertone run --once --roles SINK` over a backlog, with a group and a store of its own. Figures are less those of
the same command over an empty topic, which is what starting costs. Against the store: posts a second by the clock, with the
store on the same cores. Against one that swallows: CPU-ms of our process for 1,000 posts, user and system time of all its
threads. ClickHouse's and Qdrant's engines stand behind Python, whose share of the cores is theirs; servers of their own are
faster. The load of the machine is told, since the clock is worth little beside other work.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests"), str(Path(__file__).resolve().parent)]
os.environ.setdefault("UNDERTONE_BIN", str(ROOT / "target" / "release" / "undertone"))

import swallow  # noqa: E402
from confluent_kafka import Producer  # noqa: E402

from servers.clickhouse import ClickHouse  # noqa: E402
from servers.kafka import Kafka  # noqa: E402
from servers.opensearch import OpenSearch  # noqa: E402
from servers.qdrant import Qdrant  # noqa: E402
from support.latest import SINKS, scored  # noqa: E402
from support.process import arguments, environment, free_ports  # noqa: E402
from support.topics import Topics  # noqa: E402

TEXT = "the quick brown fox is not amused by the weather in this town, and says so at length #weather "
DAY_MS = 86_400_000
ROUND_SECONDS = 300


@dataclass
class Round:
    wall: float
    cpu: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sinks", default=",".join(SINKS))
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--record", type=Path, help="also profile a round against one that swallows with perf, into FILE.SINK")
    options = parser.parse_args()
    report: dict = {"posts": options.posts, "rounds": options.rounds, "cores": os.cpu_count(), "load_before": load(), "sinks": {}}
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as name, ExitStack() as stack:
        folder = Path(name)
        bench = Bench(options, stack.enter_context(Kafka(folder / "kafka")), folder)
        for sink in options.sinks.split(","):
            with ExitStack() as servers:
                report["sinks"][sink] = bench.measure(sink, servers)
            print(sink, json.dumps(report["sinks"][sink]), flush=True)
    report["load_after"] = load()
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


class Bench:
    def __init__(self, options: argparse.Namespace, kafka: Kafka, folder: Path) -> None:
        self.options, self.folder, self.number = options, folder, 0
        self.full, self.empty = Topics(kafka.brokers, partitions=4), Topics(kafka.brokers, partitions=4)
        self.produce()

    def produce(self) -> None:
        """Posts of three days, each once, with texts and embeddings that do not compress to nothing."""
        chance = random.Random(1)
        template = scored(0)
        first = template.created_at_us // 1000
        embeddings = [[chance.gauss(0, 1) for _ in range(384)] for _ in range(1000)]
        producer = Producer({"bootstrap.servers": self.full.brokers, "linger.ms": 50, "compression.type": "lz4", "batch.size": 200_000})
        for number in range(self.options.posts):
            post = scored(number, created_ms=first + number % 3 * DAY_MS, embedding=embeddings[number % 1000], author=f"author{number % 5000}")
            post.text = TEXT[: 20 + number % 75] + str(number)
            while True:
                try:
                    producer.produce(self.full.scored, post.SerializeToString(), partition=number % 4)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(120) == 0

    def measure(self, sink: str, servers: ExitStack) -> dict:
        folder = self.folder / sink
        real = {
            "clickhouse": lambda: ClickHouse(folder),
            "opensearch": lambda: OpenSearch(folder),
            "qdrant": lambda: Qdrant(folder),
        }[sink]()
        servers.enter_context(real)
        starts = [self.round(sink, real.url, self.empty) for _ in range(3)]
        start = Round(*(statistics.median(getattr(each, name) for each in starts) for name in ("wall", "cpu", "peak_mib")))
        stored = [self.round(sink, real.url, self.full) for _ in range(self.options.rounds)]
        if sink == "qdrant":
            # Of each round its own, which begins with nothing.
            swallowing = []

            def url(name: str) -> str:
                server, address = swallow.qdrant(name)
                swallowing.append(server)  # it ends with the last that knows it
                return address

        else:
            proxy = servers.enter_context(swallow.in_front_of(real.url))
            url = lambda _: proxy.uri  # noqa: E731
        swallowed = [self.round(sink, url, self.full) for _ in range(self.options.rounds)]
        if self.options.record:
            self.round(sink, url, self.full, ["perf", "record", "-F", "499", "-g", "-o", f"{self.options.record}.{sink}"])
        per_1000 = lambda each: (each.cpu - start.cpu) * 1e6 / self.options.posts  # noqa: E731
        return {
            "posts_per_s": [round(self.options.posts / (each.wall - start.wall)) for each in stored],
            "own_cpu_ms_per_1000_posts": round(statistics.median(map(per_1000, swallowed)), 1),
            "rounds": [round(per_1000(each), 1) for each in swallowed],
            "start_cpu_s": round(start.cpu, 2),
            "peak_mib": round(max(each.peak_mib for each in stored + swallowed)),
        }

    def round(self, sink: str, url, topics: Topics, wrap: list[str] | None = None) -> Round:
        self.number += 1
        name, config = f"b{self.number}", self.folder / f"{self.number}.toml"
        key = {"clickhouse": "table", "opensearch": "index", "qdrant": "collection"}[sink]
        address = url(name) if callable(url) else url
        more = "replicas = 0\n" if sink == "opensearch" else ""
        config.write_text(f'[{sink}]\nurl = "{address}"\n{key} = "{name}"\n{more}')
        http, grpc = free_ports(2)
        command = arguments("run", "--once", "--roles", sink, "--config", config, "--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}")
        env = environment(topics.settings(UNDERTONE_KAFKA__GROUP=name))
        before, began = cpu_of_ended(), time.monotonic()
        process = subprocess.Popen([*(wrap or []), *command], cwd=self.folder, env=env, stderr=subprocess.PIPE, text=True)
        try:
            _, said = process.communicate(timeout=ROUND_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise SystemExit(f"a round did not end within {ROUND_SECONDS} s:\n{process.communicate()[1]}") from None
        if process.returncode != 0:
            raise SystemExit(f"a round failed:\n{said}")
        return Round(time.monotonic() - began, cpu_of_ended() - before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def cpu_of_ended() -> float:
    """Of children that have ended: the servers still run."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def load() -> float:
    return round(os.getloadavg()[0], 1)


if __name__ == "__main__":
    main()
