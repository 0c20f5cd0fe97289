#!/usr/bin/env python3
"""Loads a gateway from outside, beside what the core alone does on the same cores, and prints one table.

    benches/load/measure.py [--quick] [--server-cores 0] [--client-cores 1] [--out results.json]
    measure.py --binary undertone --load undertone-load --model DIR --device cuda:0 --server-cores 0-7 --client-cores 8-15

It needs nothing but Python's own library, the two binaries and a model folder, so that it runs on any machine: this file, they, and where
the device is a GPU libtorch with CUDA (found beside an installed torch, or with --torch-lib). It starts `undertone run --roles gateway` with
the repeat cache off, since the texts go round, and with everything else as it comes, request log included. Server and generator are
pinned to cores of their own. `undertone bench --phases bulk` on the server's cores is the yardstick; it and the gateway's ways in are
measured in turn, and a share is the median of each round's own. What cannot be measured is said, and nothing is left out of the table.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 120
PHASES = ("bulk", "beside", "overload", "idle")
MIB = 1 << 20


class Failed(Exception):
    """A phase could not be measured."""


def main() -> int:
    options = arguments()
    own = set(options.client_cores)
    os.sched_setaffinity(0, own)
    if own & set(options.server_cores):
        print("load: server and generator share cores; the figures say little", file=sys.stderr)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    report = {"machine": machine(options), "settings": settings(options)}
    rows, failed = [], False
    with tempfile.TemporaryDirectory(prefix="undertone-load-") as folder:
        bench = Bench(options, Path(folder))
        for phase in (phase for phase in PHASES if phase in options.only):
            try:
                with bench.server():
                    measured, more = getattr(bench, phase)()
            except Failed as failure:
                failed = True
                measured, more = {"failed": str(failure)}, [(phase, str(failure), "", "not measured")]
            report[phase] = measured
            rows += more
            if options.out:
                options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{report['machine']['processor']}; server on {options.server_cores}, generator on {options.client_cores}; {bench.model}")
    print(table([("what", "measured", "wanted", ""), *rows]))
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    built = ROOT / "target" / "release"
    parser.add_argument("--binary", type=Path, default=built / "undertone")
    parser.add_argument("--load", type=Path, default=built / "undertone-load", help="the generator")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "sentiment")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--workers", type=int, default=0, help="of the core, here and there; 0: as many as it takes itself")
    parser.add_argument("--torch-lib", type=Path, help="folder of libtorch with CUDA; left out, that of an installed torch")
    parser.add_argument("--server-cores", type=cores, default=[0], help="as taskset takes them: 0-3,8")
    parser.add_argument("--client-cores", type=cores, default=[1])
    parser.add_argument("--texts", type=Path, help="file of JSON lines with a field text; left out, the generator's posts")
    parser.add_argument("--count", type=int, default=4096, help="texts that go round; the yardstick reads no more than 4096")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement; the interactive ones take twice as long")
    parser.add_argument("--json-size", type=int, default=256, help="texts in a JSON call")
    parser.add_argument("--json-in-flight", type=int, default=4, help="JSON calls in flight")
    parser.add_argument("--arrow-size", type=int, default=1024, help="rows in an Arrow call")
    parser.add_argument("--arrow-in-flight", type=int, default=3, help="Arrow calls in flight")
    parser.add_argument("--clients", type=int, default=64, help="clients that send single texts")
    parser.add_argument("--rate", type=float, default=20, help="interactive texts a second beside bulk")
    parser.add_argument("--beside", choices=("json", "arrow"), default="arrow", help="what bulk is beside interactive texts")
    parser.add_argument("--overload", type=float, default=10, help="times the capacity")
    parser.add_argument("--overload-seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=512, help="of the overload")
    parser.add_argument("--idle", type=int, default=5000, help="idle connections")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PHASES), help=f"of {','.join(PHASES)}")
    parser.add_argument("--quick", action="store_true", help="seconds, to show that it runs; its figures mean nothing")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    for name in ("binary", "load", "model"):
        path = getattr(options, name).resolve()
        setattr(options, name, path)
        if not path.exists():
            parser.error(f"--{name}: {path} is not there; `make bench-load` builds it")
    unknown = set(options.only) - set(PHASES)
    if unknown:
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there is {', '.join(PHASES)}")
    if options.quick:
        options.rounds, options.seconds, options.overload_seconds, options.idle = 1, 1.0, 3.0, min(options.idle, 200)
    return options


def cores(text: str) -> list[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    missing = found - set(range(os.cpu_count() or 1))
    if missing:
        raise argparse.ArgumentTypeError(f"this machine has no core {min(missing)}")
    return sorted(found)


class Bench:
    """What is measured, each with the server that is running."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.environment = environment(options)
        self.texts = self.write_texts()
        self.process: subprocess.Popen | None = None
        self.address, self.model, self.capacity = "", "", 0.0

    def write_texts(self) -> Path:
        """The texts that everything is measured with, and nothing that is none."""
        count, texts = self.options.count, []
        if self.options.texts:
            lines = self.options.texts.read_bytes().splitlines()
        else:
            generate = [str(self.options.binary), "generate", "--seed", "1", "--start", "2026-05-01T12:00:00Z", "--count", str(count + count // 10)]
            lines = subprocess.run(generate, env=self.environment, stdout=subprocess.PIPE, check=True).stdout.splitlines()
        for line in lines:
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError):
                continue  # the generator makes some malformed, as the world does
            if isinstance(text, str) and text.strip() and len(texts) < count:
                texts.append(text)
        if not texts:
            raise SystemExit("load: there is no text to send")
        path = self.folder / "texts.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return path

    # The server.

    @contextmanager
    def server(self):
        """A gateway of its own for each phase, so that none has another's memory."""
        http, grpc = free_ports(2)
        self.address = f"127.0.0.1:{http}"
        command = ["run", "--roles", "gateway", "--http", self.address, "--grpc", f"127.0.0.1:{grpc}", *self.compute()]
        with (self.folder / "server.log").open("wb") as log:
            self.process = self.start(command, self.options.server_cores, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.wait_until_ready()
            yield
            if self.process.poll() is not None:
                raise Failed(f"the server ended with status {self.process.returncode}: {self.log()}")
        finally:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def start(self, command: list[str], where: list[int], **more) -> subprocess.Popen:
        return subprocess.Popen(
            [str(self.options.binary), *command], env=self.environment, cwd=self.folder, preexec_fn=lambda: os.sched_setaffinity(0, where), **more
        )

    def compute(self) -> list[str]:
        options = self.options
        return ["--model", str(options.model.resolve()), "--device", options.device, "--precision", options.precision]

    def wait_until_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failed(f"the server did not start: {self.log()}")
            try:
                model = get(f"http://{self.address}/v1/models")["models"][0]
                self.model = f"{model['name']} {model['precision']} on {model['device']}"
                return
            except OSError:
                time.sleep(0.1)
        raise Failed(f"the server was not ready in {START_SECONDS} s: {self.log()}")

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-2000:]

    def rss(self) -> float:
        """Resident memory of the server in MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB

    # The generator and the yardstick.

    def load(self, *args: object, timeout: float) -> dict:
        command = [str(self.options.load), "--server", self.address, *map(str, args)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
        except subprocess.TimeoutExpired as expired:
            raise Failed(f"{args[0]} did not end in {timeout:.0f} s") from expired
        if done.returncode != 0:
            raise Failed(f"{args[0]}: {done.stderr.decode(errors='replace').strip()}; server: {self.log()}")
        return json.loads(done.stdout)

    def core(self) -> dict:
        """Texts a second of the core alone, without a gateway, on the server's cores."""
        options = self.options
        command = ["bench", "--phases", "bulk", "--json", "--input", str(self.texts), "--seconds", str(max(1, round(options.seconds)))]
        command += [*self.compute(), "--workers", str(options.workers)]
        process = self.start(command, options.server_cores, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, error = process.communicate()
        if process.returncode != 0:
            raise Failed(f"bench: {error.decode(errors='replace').strip()}")
        return json.loads(out)["saturated"]

    def closed(self, shape: str) -> dict:
        """Texts a second of calls of one shape."""
        options = self.options
        return self.load("closed", *self.bulk_args(shape), "--seconds", options.seconds, timeout=300 + 10 * options.seconds)

    def bulk_args(self, shape: str) -> tuple:
        options = self.options
        size, in_flight = {
            "json": (options.json_size, options.json_in_flight),
            "arrow": (options.arrow_size, options.arrow_in_flight),
            "single": (1, options.clients),
        }[shape]
        return ("--texts", self.texts, "--shape", shape, "--size", size, "--in-flight", in_flight, "--warm", options.seconds / 10)

    # What is asked.

    def bulk(self) -> tuple[dict, list]:
        """Each way in beside the core, in turn."""
        rounds = []
        for _ in range(self.options.rounds):
            measured = {"core": self.core()}
            for shape in ("json", "arrow", "single"):
                measured[shape] = self.closed(shape)
            rounds.append(measured)
        rate = {what: statistics.median(each[what]["texts_per_s"] for each in rounds) for what in rounds[0]}
        rows = [("core alone, texts/s", f"{rate['core']:,.0f}", "", "")]
        shares = {}
        for shape, name, wanted in (("json", "bulk JSON", 95), ("arrow", "bulk Arrow", 98), ("single", f"{self.options.clients} clients of single texts", 90)):
            each = [100 * one[shape]["texts_per_s"] / one["core"]["texts_per_s"] for one in rounds]
            shares[shape] = statistics.median(each)
            said = f"{shares[shape]:.1f} % ({min(each):.1f} to {max(each):.1f}), {rate[shape]:,.0f} texts/s"
            rows.append((f"{name}, of the core", said, f">= {wanted} %", verdict(shares[shape] >= wanted)))
            rows += [(f"{name}: calls that were not scored", *strange, "", "missed") for strange in unexpected(one[shape]["ends"] for one in rounds)]
        self.capacity = rate["single"]
        return {"texts_per_s": rate, "shares_percent": shares, "rounds": rounds}, rows

    def beside(self) -> tuple[dict, list]:
        """Interactive texts while bulk runs at full load."""
        options, rounds = self.options, []
        for _ in range(options.rounds):
            alone = self.closed(options.beside)
            both = self.load("beside", *self.bulk_args(options.beside), "--seconds", 2 * options.seconds, "--rate", options.rate, timeout=300 + 20 * options.seconds)
            rounds.append({"alone": alone, **both})
        p99s = [each["interactive"]["scored"]["p99_ms"] for each in rounds]
        p50s = [each["interactive"]["scored"]["p50_ms"] for each in rounds]
        shares = [100 * each["bulk"]["texts_per_s"] / each["alone"]["texts_per_s"] for each in rounds]
        lag = max(each["interactive"]["lag"]["p99_ms"] for each in rounds)
        p99, share, wanted = statistics.median(p99s), statistics.median(shares), wanted_p99(options)
        rows = [
            (f"interactive p99 at {options.rate:g}/s beside {options.beside}", f"{p99:.1f} ms ({min(p99s):.1f} to {max(p99s):.1f})", f"<= {wanted} ms", verdict(p99 <= wanted)),
            ("interactive p50 beside bulk", f"{statistics.median(p50s):.1f} ms (sent late: p99 {lag:.1f} ms)", "", ""),
            ("bulk beside interactive, of bulk alone", f"{share:.1f} % ({min(shares):.1f} to {max(shares):.1f})", ">= 90 %", verdict(share >= 90)),
        ]
        rows += [("interactive: calls that were not scored", *strange, "", "missed") for strange in unexpected(each["interactive"]["ends"] for each in rounds)]
        return {"p99_ms": p99, "bulk_share_percent": share, "rounds": rounds}, rows

    def overload(self) -> tuple[dict, list]:
        """Ten times the capacity, and what it does to goodput, refusals and memory."""
        options = self.options
        if not self.capacity:
            self.capacity = self.closed("single")["texts_per_s"]
        rate, seconds = options.overload * self.capacity, options.overload_seconds
        self.closed("single")  # what it needs for full load is no growth
        before, samples, done = self.rss(), [], threading.Event()
        sampler = threading.Thread(target=lambda: watch(self.rss, samples, done))
        sampler.start()
        try:
            sent = self.load("overload", "--texts", self.texts, "--rate", rate, "--seconds", seconds, "--connections", options.connections, timeout=seconds + 200)
        finally:
            done.set()
            sampler.join()
        time.sleep(2)
        peak, after = max([before, *samples]), self.rss()
        goodput = 100 * sent["scored_per_s"] / self.capacity
        refused, slowest, p99 = sent["ends"].get("refused", 0), sent["refused_from_sent"]["max_ms"], sent["refused_from_sent"]["p99_ms"]
        others = {end: count for end, count in sent["ends"].items() if end not in ("scored", "refused")}
        recovered = sent["recovered_ms"]
        short = f"; offered {sent['sent'] / seconds:,.0f} of {rate:,.0f}/s" if sent["unsent"] else ""
        rows = [
            (f"goodput at {options.overload:g} x, of {self.capacity:,.0f} texts/s", f"{goodput:.1f} %{short}", ">= 90 %", verdict(goodput >= 90)),
            ("planned, sent, sent late, never sent", f"{sent['planned']:,}, {sent['sent']:,}, {sent['late']:,}, {sent['unsent']:,}", ">= 99.9 % sent", verdict(sent["unsent"] <= sent["planned"] / 1000)),
            ("refused with 429 and Retry-After", f"{refused:,}; otherwise: {others or 'none'}", "all", verdict(not others)),
            ("a refusal takes, p99 and longest", f"{p99:.1f}, {slowest:.1f} ms", "< 50 ms", verdict(slowest < 50)),
            ("what was scored took, p50 and p99", f"{sent['scored']['p50_ms']:.0f}, {sent['scored']['p99_ms']:.0f} ms", "", ""),
            ("resident memory before, peak, after", f"{before:.0f}, {peak:.0f}, {after:.0f} MiB", "flat", verdict(peak <= before * 1.1 + 20)),
            ("answers normally after", "never" if recovered is None else f"{recovered:.0f} ms", "< 1 s", verdict(recovered is not None and recovered < 1000)),
        ]  # fmt: skip
        return {"rate": rate, "capacity": self.capacity, "goodput_percent": goodput, "rss_mib": [before, peak, after], **sent}, rows

    def idle(self) -> tuple[dict, list]:
        """What idle connections cost."""
        count = self.options.idle
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit != resource.RLIM_INFINITY and limit < count + 300:
            raise Failed(f"{count} connections need a limit of open files of {count + 300}, and it is {limit}; raise it (ulimit -Hn) or lower --idle")
        self.closed("single")
        time.sleep(1)
        before = self.rss()
        command = [str(self.options.load), "--server", self.address, "idle", "--connections", str(count)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        opened = process.stdout.readline()
        time.sleep(2)
        after = self.rss()
        out, error = process.communicate()
        if process.returncode != 0 or not opened:
            raise Failed(f"idle: {error.strip()}")
        alive, grown = json.loads(out)["alive"], after - before
        said = f"{grown:.0f} MiB, {1024 * grown / count:.1f} KiB each; {alive:,} of {count:,} still open"
        wanted = 100 * count / 5000
        return {"connections": count, "alive": alive, "rss_mib": [before, after]}, [
            (f"{count:,} idle connections", said, f"< {wanted:.0f} MiB", verdict(grown < wanted and alive == count))
        ]


def watch(rss, samples: list[float], done: threading.Event) -> None:
    while not done.wait(0.25):
        try:
            samples.append(rss())
        except (OSError, IndexError):
            return  # the server is gone, which whoever loads it finds out, too


def unexpected(ends) -> list[tuple[str]]:
    """How calls ended that were not scored, if some did."""
    counts: dict[str, int] = {}
    for each in ends:
        for end, count in each.items():
            if end != "scored":
                counts[end] = counts.get(end, 0) + count
    return [(f"{end}: {count}",) for end, count in counts.items()]


def wanted_p99(options: argparse.Namespace) -> int:
    flags = Path("/proc/cpuinfo").read_text()
    return 30 if options.device.startswith("cuda") or " avx512f" in flags else 60


def verdict(met: bool) -> str:
    return "" if met else "missed"


def table(rows: list[tuple[str, str, str, str]]) -> str:
    """A Markdown table, its columns aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def environment(options: argparse.Namespace) -> dict[str, str]:
    """The caller's environment without what configures Undertone, and with CUDA's libraries where they are wanted."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UNDERTONE_") or name == "UNDERTONE_LIBTORCH_CUDA"}
    kept |= {"UNDERTONE_INFERENCE__CACHE_BYTES": "0", "UNDERTONE_INFERENCE__WORKERS": str(options.workers)}
    libraries = options.torch_lib
    if libraries is None and options.device.startswith("cuda"):
        torch = importlib.util.find_spec("torch")
        libraries = Path(torch.origin).parent / "lib" if torch and torch.origin else None
    if libraries:
        paths = [str(libraries), kept.get("LD_LIBRARY_PATH", "")]
        kept |= {"UNDERTONE_LIBTORCH_CUDA": str(libraries), "LD_LIBRARY_PATH": ":".join(filter(None, paths))}
    return kept


def machine(options: argparse.Namespace) -> dict:
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    siblings = Path(f"/sys/devices/system/cpu/cpu{options.server_cores[0]}/topology/thread_siblings_list")
    return {
        "processor": names[0] if names else platform.machine(), "cores": os.cpu_count(), "load_before": os.getloadavg()[0],
        "siblings_of_the_servers_first_core": siblings.read_text().strip() if siblings.exists() else None,
    }  # fmt: skip


def settings(options: argparse.Namespace) -> dict:
    """What it was called with; of a path its name, since a machine's folders say nothing."""
    return {name: value.name if isinstance(value, Path) else value for name, value in vars(options).items() if name not in ("out", "torch_lib")}


def get(url: str) -> dict:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return json.load(answer)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


if __name__ == "__main__":
    sys.exit(main())
