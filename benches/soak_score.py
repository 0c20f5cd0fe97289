#!/usr/bin/env python3
"""A million texts through `undertone score`, and the memory that it holds meanwhile.

    benches/soak_score.py [--count 1000000] [--precision auto] [--binary target/release/undertone]

The generator's texts are piped in, so nothing is stored but the results' number. Resident memory is read twice a second. Status 1 if it is
more than 10 % + 20 MiB above what it was after the first twentieth of the texts, or if a result is missing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "undertone")
    parser.add_argument("--precision", default="auto", help="as `undertone score` takes it")
    options = parser.parse_args()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UNDERTONE_")} | {"UNDERTONE_LOG": "error"}
    # A post that the generator made malformed gets its error in its place, so status 1 is as it should be.
    generate = [str(options.binary), "generate", "--seed", "1", "--start", "2026-05-01T12:00:00Z", "--count", str(options.count)]
    source = subprocess.Popen(generate, stdout=subprocess.PIPE, env=environment)
    score = [str(options.binary), "score", "--format", "jsonl", "--precision", options.precision]
    scorer = subprocess.Popen(score, stdin=source.stdout, stdout=subprocess.PIPE, env=environment, cwd=ROOT)
    source.stdout.close()

    lines, samples, done = [0], [], threading.Event()
    sampler = threading.Thread(target=sample, args=(scorer.pid, lines, samples, done))
    sampler.start()
    started = time.monotonic()
    for _ in scorer.stdout:
        lines[0] += 1
    done.set()
    sampler.join()
    seconds = time.monotonic() - started
    statuses = (source.wait(), scorer.wait())
    settled = [mib for count, mib in samples if count >= options.count / 20]
    if not settled:
        print("soak: over before memory could be read; raise --count", file=sys.stderr)
        return 1
    limit = settled[0] * 1.1 + 20
    print(f"soak: {lines[0]} results of {options.count} texts in {seconds:.0f} s, {lines[0] / seconds:.0f} a second")
    print(f"soak: resident memory {settled[0]:.0f} MiB after a twentieth, at most {max(settled):.0f}, at the end {settled[-1]:.0f}")
    if lines[0] < options.count or statuses[0] != 0 or statuses[1] not in (0, 1):
        print(f"soak: results are missing (generate ended with {statuses[0]}, score with {statuses[1]})", file=sys.stderr)
        return 1
    if max(settled) > limit:
        print(f"soak: memory grew past {limit:.0f} MiB", file=sys.stderr)
        return 1
    return 0


def sample(pid: int, lines: list[int], samples: list[tuple[int, float]], done: threading.Event) -> None:
    while not done.wait(0.5):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        resident = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), None)
        if resident:
            samples.append((lines[0], int(resident) / 1024))


if __name__ == "__main__":
    sys.exit(main())
