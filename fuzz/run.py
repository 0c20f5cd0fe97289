#!/usr/bin/env python3
"""Runs the decoders under libFuzzer, each for a while, led by which parts of our crates an input reaches. No nightly compiler.

    fuzz/run.py                          every decoder, a minute each
    fuzz/run.py score --seconds 600      one of them

What was reached is kept in target/fuzz, so that the next run goes on from there. Status 1 if a decoder was broken: the input
is in its folder, and `UNDERTONE_FUZZ_FILE=INPUT cargo test --release -p undertone-fuzz DECODER` tries it again.
`. scripts/env.sh` first; `make fuzz` does.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "fuzz"
PROGRAM = WORK / "release" / "decoder"

# Of one input: longer than the targets' own patience, and more memory than any needs.
LIMITS = ["-timeout=30", "-rss_limit_mb=4096", "-max_len=65536"]


def main() -> int:
    names = re.findall(r"^    name: \"(\w+)\",$", "".join(path.read_text() for path in sorted((ROOT / "fuzz" / "src").glob("*.rs"))), re.M)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decoders", nargs="*", metavar="DECODER", help=", ".join(names))
    parser.add_argument("--seconds", type=int, default=60, help="for each of them (60)")
    options = parser.parse_args()
    if unknown := set(options.decoders) - set(names):
        parser.error(f"no such decoder: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    build()
    print(f"{'decoder':<14}{'inputs':>10}{'reached':>10}{'kept':>8}")
    broken = [name for name in options.decoders or names if not fuzz(name, options.seconds)]
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def build() -> None:
    """Crates of others are those of the other builds; ours are compiled once more."""
    environment = os.environ | {"RUSTC_WORKSPACE_WRAPPER": str(ROOT / "fuzz" / "coverage.sh"), "CARGO_TARGET_DIR": str(WORK)}
    features = ["--features", "failpoints,undertone-fuzz/libfuzzer"]
    command = ["cargo", "build", "--release", "--locked", "--workspace", *features, "--bin", "decoder"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def fuzz(name: str, seconds: int) -> bool:
    """Whether nothing broke it."""
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"UNDERTONE_FUZZ_TARGET": name, "UNDERTONE_FUZZ_FOLDER": str(folder)}
    options = [*LIMITS, f"-max_total_time={seconds}", f"-dict={folder / 'words'}", f"-artifact_prefix={folder}/"]
    done = subprocess.run([str(PROGRAM), *options, str(folder / "corpus")], cwd=folder, env=environment, capture_output=True)
    said = done.stderr.decode(errors="replace")
    # As `#4096 DONE cov: 731 ft: 1024 corp: 87/9Kb …`, the last of such lines.
    lines = re.findall(r"^#(\d+)\s.*?cov: (\d+) .*?corp: (\d+)/", said, re.M)
    inputs, reached, kept = lines[-1] if lines else ("0", "0", "0")
    print(f"{name:<14}{inputs:>10}{reached:>10}{kept:>8}", flush=True)
    if done.returncode != 0:
        print(said[-4000:], file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
