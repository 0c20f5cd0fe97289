#!/usr/bin/env python3
"""Measures the stream alone: a real broker, `posts.raw` to `posts.scored` to Silver, with a model that costs nothing.

    benches/stream/measure.py [--posts 400000] [--rounds 3] [--roles score,silver] [--record perf.data]
    benches/stream/measure.py --live 300 [--seconds 30] --binary target/release/undertone
    benches/stream/measure.py --core --posts 20000 --binary target/release/undertone
    benches/stream/measure.py --memory 2000000 --posts 5000000

A round is `undertone run --once` over a backlog: its own topics, group and tables, the same posts. Figures are posts per CPU-second of our process:
user and system time of all its threads, less that of the same command over an empty topic, which is what starting costs. The broker's
CPU time is told apart. The binary is built with `--features stub-model` (see src/run/model); `make bench-stream` does it all.

With `--live` posts come one by one at a steady rate, and latency is from the broker's timestamp of a post until a reader of committed
records has its score. With `--core` rounds of the stream alternate with rounds of `undertone bench` over the same posts, both with the real
model: what the stream leaves of the core's throughput. With `--memory N` the process works on a backlog of `--posts` until it has scored N of them, and
its resident memory is taken every second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from confluent_kafka import Consumer, Producer, TopicPartition  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

from servers.kafka import Kafka  # noqa: E402
from support.topics import decode  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
WARM_SECONDS = 10


@dataclass
class Round:
    posts: int
    wall: float
    cpu: float
    broker_cpu: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--roles", default="score,silver")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "stub" / "release" / "undertone")
    parser.add_argument("--live", type=float, default=0, help="posts a second, one by one: latency instead of throughput")
    parser.add_argument("--seconds", type=int, default=30, help="of the live part, after ten that are not counted")
    parser.add_argument("--core", action="store_true", help="beside what the core alone does: give a binary with the real model")
    parser.add_argument("--memory", type=int, default=0, metavar="POSTS", help="resident memory until so many posts are scored")
    parser.add_argument("--record", type=Path, help="also profile one round with perf, into this file")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder, Kafka(Path(folder) / "kafka") as kafka:
        bench = Bench(options, kafka, Path(folder))
        if options.live:
            print(json.dumps(bench.live(), indent=2))
            return
        bench.produce()
        if options.memory:
            print(json.dumps(bench.memory(), indent=2))
            return
        start = bench.round(empty=True)
        rounds, core = [], []
        for _ in range(options.rounds):
            rounds.append(bench.round())
            if options.core:
                core.append(bench.core())
        report = summary(start, rounds, options)
        if core:
            report |= beside(core, report["rounds"])
        print(json.dumps(report, indent=2))
        if options.json:
            options.json.write_text(json.dumps(report, indent=2) + "\n")
        if options.record:
            bench.round(wrap=["perf", "record", "-F", "499", "--call-graph", "dwarf,8192", "-o", str(options.record)])


class Bench:
    def __init__(self, options: argparse.Namespace, kafka: Kafka, folder: Path) -> None:
        self.options, self.kafka, self.folder = options, kafka, folder
        self.admin = AdminClient({"bootstrap.servers": kafka.brokers})
        self.number = 0
        self.make("raw", "empty")

    def make(self, *names: str) -> None:
        new = [NewTopic(name, num_partitions=self.options.partitions, replication_factor=1) for name in names]
        for made in self.admin.create_topics(new).values():
            made.result(30)

    def produce(self) -> None:
        """The generator's posts, spread over the partitions as a keyed producer would."""
        producer = Producer({"bootstrap.servers": self.kafka.brokers, "linger.ms": 50, "compression.type": "lz4", "batch.size": 200_000})
        command = [self.options.binary, "generate", "--count", str(self.options.posts), "--seed", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as posts:
            for number, line in enumerate(posts.stdout):
                while True:
                    try:
                        producer.produce("raw", line.rstrip(b"\n"), key=str(number))
                        break
                    except BufferError:
                        producer.poll(0.1)
        producer.flush()

    def command(self, raw: str) -> list[str]:
        """`undertone run` on topics and tables that nobody has used."""
        self.number += 1
        scored, dead = f"scored-{self.number}", f"dead-{self.number}"
        self.make(scored, dead)
        config = self.folder / f"{self.number}.toml"
        config.write_text(
            f'[kafka]\nbrokers = "{self.kafka.brokers}"\ngroup = "bench-{self.number}"\nstart = "earliest"\n'
            f'[kafka.topics]\nraw = "{raw}"\nscored = "{scored}"\ndead = "{dead}"\n'
        )
        data = self.folder / f"data-{self.number}"
        return [str(self.options.binary), "run", "--roles", self.options.roles, "--config", str(config), "--data", str(data)]

    def round(self, empty: bool = False, wrap: list[str] | None = None) -> Round:
        command = [*(wrap or []), *self.command("empty" if empty else "raw"), "--once"]
        before, broker, began = cpu_of_children(), cpu_of(self.kafka.pid), time.monotonic()
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        wall, cpu, broker = time.monotonic() - began, cpu_of_children() - before, cpu_of(self.kafka.pid) - broker
        if done.returncode != 0:
            raise SystemExit(f"a round failed:\n{done.stderr}")
        posts = 0 if empty else self.options.posts
        return Round(posts, wall, cpu, broker, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)

    def core(self) -> float:
        """Posts a second that the core alone scores, by core that it has: it keeps all of them busy."""
        posts = self.folder / "posts.jsonl"
        if not posts.exists():
            command = [self.options.binary, "generate", "--count", str(min(self.options.posts, 20_000)), "--seed", "1"]
            lines = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines(keepends=True)
            posts.write_bytes(b"".join(line for line in lines if is_text(line)))
        command = [self.options.binary, "bench", "--phases", "bulk", "--seconds", str(self.options.seconds), "--input", str(posts), "--json"]
        report = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
        return report["saturated"]["texts_per_s"] / len(os.sched_getaffinity(0))

    def memory(self) -> dict:
        command, topic = self.command("raw"), f"scored-{self.number}"
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        consumer = Consumer({"bootstrap.servers": self.kafka.brokers, "group.id": "memory"})
        taken: list[tuple[int, float]] = []
        while not taken or taken[-1][0] < self.options.memory:
            time.sleep(1)
            if process.poll() is not None:
                raise SystemExit(f"undertone ended with status {process.returncode}")
            ends = [consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1] for number in range(self.options.partitions)]
            taken.append((sum(ends), rss_mib(process.pid)))
        process.terminate()
        if process.wait() != 0:
            raise SystemExit(f"undertone ended with status {process.returncode}")
        at = lambda share: next(mib for scored, mib in taken if scored >= share * self.options.memory)  # noqa: E731
        later = [mib for scored, mib in taken if scored >= 0.1 * self.options.memory]
        return {
            "backlog": self.options.posts,
            "scored": self.options.memory,
            "rss_mib": {f"{share:.0%}": round(at(share)) for share in (0.1, 0.25, 0.5, 0.75, 1)},
            "median_mib": round(statistics.median(later)),
            "least_mib": round(min(later)),
            "most_mib": round(max(later)),
        }

    def live(self) -> dict:
        command, topic = self.command("raw"), f"scored-{self.number}"
        wanted = int(self.options.live * (self.options.seconds + WARM_SECONDS))
        posts = subprocess.run([self.options.binary, "generate", "--count", str(wanted), "--seed", "1"], check=True, capture_output=True).stdout.splitlines()
        found: list[tuple[float, float]] = []
        done = threading.Event()
        consumer = Consumer({"bootstrap.servers": self.kafka.brokers, "group.id": "latency", "isolation.level": "read_committed", "fetch.wait.max.ms": 10})
        consumer.assign([TopicPartition(topic, number, 0) for number in range(self.options.partitions)])

        def follow() -> None:
            while not done.is_set():
                for record in consumer.consume(1000, 0.05):
                    now = time.time()
                    came = decode("ScoredPost", record.value()).ingested_at_us / 1e6
                    found.append((came, (now - came) * 1000))

        follower = threading.Thread(target=follow)
        follower.start()
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        time.sleep(8)
        producer = Producer({"bootstrap.servers": self.kafka.brokers, "linger.ms": 0})
        began = time.monotonic()
        for number, post in enumerate(posts):
            time.sleep(max(0.0, began + number / self.options.live - time.monotonic()))
            producer.produce("raw", post, key=str(number))
            producer.poll(0)
        producer.flush()
        time.sleep(3)
        done.set()
        follower.join()
        process.terminate()
        if process.wait() != 0:
            raise SystemExit(f"undertone ended with status {process.returncode}")
        first = min(came for came, _ in found) + WARM_SECONDS
        counted = sorted(latency for came, latency in found if came >= first)
        at = lambda share: round(counted[min(len(counted) - 1, int(share * len(counted)))])  # noqa: E731
        return {"posts_per_s": self.options.live, "posts": len(counted), "event_to_scored_ms": {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1)}}


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def is_text(line: bytes) -> bool:
    """The generator damages some posts on purpose, which are no work for the core."""
    try:
        return bool(json.loads(line)["text"].strip())
    except (ValueError, LookupError, TypeError, AttributeError):
        return False


def rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def beside(core: list[float], rounds: list[int]) -> dict:
    """A ratio is the median of each round's own."""
    return {
        "core_posts_per_core_second": [round(each) for each in core],
        "share_of_core": round(statistics.median(ours / alone for ours, alone in zip(rounds, core)), 3),
    }


def summary(start: Round, rounds: list[Round], options: argparse.Namespace) -> dict:
    rates = [each.posts / (each.cpu - start.cpu) for each in rounds]
    return {
        "posts": options.posts,
        "roles": options.roles,
        "posts_per_cpu_second": round(statistics.median(rates)),
        "rounds": [round(rate) for rate in rates],
        "start_cpu_s": round(start.cpu, 2),
        "cpu_s": round(statistics.median(each.cpu for each in rounds), 2),
        "wall_s": round(statistics.median(each.wall for each in rounds), 2),
        "broker_cpu_s": round(statistics.median(each.broker_cpu for each in rounds), 2),
        "peak_mib": round(max(each.peak_mib for each in rounds)),
    }


if __name__ == "__main__":
    main()
