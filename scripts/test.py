#!/usr/bin/env python3
"""Runs every check and test, prints what each took, and ends with one line of counts. Exit status 0 only if all passed.

Called by `make test`, which sets the environment up first. `scripts/test.py NAME…` runs some of the steps alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ["UNDERTONE_CACHE"])
PYTHON = str(CACHE / "test-env" / "bin" / "python")
# The binary with fail points in it has a place of its own, so that tests never replace the one that `make run` starts.
TARGET = ROOT / "target" / "failpoints"
# Two processes, since most tests wait for servers; a file stays with one of them, and the long ones, which come first by name, begin first.
TWO = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
CARGO = ["--release", "--locked", "--workspace", "--features", "failpoints"]


@dataclass
class Step:
    name: str
    command: list[str]
    folder: Path = ROOT
    counts: str = "command"  # how its output is counted: "cargo", "pytest", or one test a command


STEPS = [
    Step("format", ["cargo", "fmt", "--all", "--check"]),
    Step("page", ["bash", "scripts/check-page.sh"]),
    Step("build", ["cargo", "build", *CARGO, "--all-targets"]),
    Step("rust", ["cargo", "test", *CARGO, "--no-fail-fast"], counts="cargo"),
    Step("clippy", ["cargo", "clippy", *CARGO, "--all-targets", "--", "-D", "warnings"]),
    Step("python", [PYTHON, "-m", "pytest", "models", "tests", "benches/gpu", "-q", "-rs", "--durations=10", *TWO], counts="pytest"),
]


@dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: "Counts") -> None:
        self.passed, self.failed, self.skipped = (
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
        )


def main() -> int:
    wanted = sys.argv[1:]
    unknown = set(wanted) - {step.name for step in STEPS}
    if unknown:
        print(f"no such step: {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in STEPS)}", file=sys.stderr)
        return 2
    total, failures, times = Counts(), [], []
    for step in STEPS:
        if wanted and step.name not in wanted:
            continue
        print(f"\n== {step.name}: {' '.join(step.command)}", flush=True)
        began = time.monotonic()
        status, output = run(step)
        times.append(f"{step.name} {time.monotonic() - began:.0f} s")
        counts = count(step, status, output)
        total.add(counts)
        if status != 0:
            failures.append(step.name)
            if step.name == "build":
                break  # nothing after it would tell more
    print(f"\n== {', '.join(times)}")
    if failures:
        print(f"failed: {', '.join(failures)}")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped", flush=True)
    return 1 if failures else 0


def run(step: Step) -> tuple[int, str]:
    environment = os.environ | {
        "CARGO_TARGET_DIR": str(TARGET),
        "UNDERTONE_BIN": str(TARGET / "release" / "undertone"),
        "UNDERTONE_TEST_MODEL": str(ROOT / "models" / "sentiment"),
    }
    process = subprocess.Popen(
        step.command, cwd=step.folder, env=environment, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    lines = []
    for line in process.stdout:
        lines.append(line)
        print(line, end="", flush=True)
    return process.wait(), "".join(lines)


def count(step: Step, status: int, output: str) -> Counts:
    if step.counts == "cargo":
        counts = Counts()
        for passed, failed, ignored in re.findall(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", output):
            counts.add(Counts(int(passed), int(failed), int(ignored)))
    elif step.counts == "pytest":
        summary = output.strip().splitlines()[-1] if output.strip() else ""
        number = lambda word: sum(int(n) for n in re.findall(rf"(\d+) {word}", summary))  # noqa: E731
        counts = Counts(number("passed"), number("failed") + number("error"), number("skipped"))
    else:
        return Counts(passed=int(status == 0), failed=int(status != 0))
    if counts.passed + counts.failed == 0 or (status != 0 and counts.failed == 0):
        counts.failed += 1  # it ended before it could count, or without running a test
    return counts


if __name__ == "__main__":
    sys.exit(main())
