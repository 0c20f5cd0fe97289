#!/usr/bin/env python3
"""The long crash test: `make crash-test ROUNDS=1000 SEED=7` kills that often, and asks the oracle after each time.

Rounds are those of support/campaign.py: 34 of 43 kill processes of ours, three the broker, three the catalog or the object
store, and three lose an answer of the broker. The result is written after every round, so that whoever ends this early (SIGTERM, SIGINT) has it; with `--resume` the
next call goes on where the file ends. Exit status 1 with the first violation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from support.campaign import Broken, Campaign, Servers  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000, help="how often to kill (1000)")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000, help="repeats a run; printed if left out")
    parser.add_argument("--out", type=Path, help="where the result is written, as JSON")
    parser.add_argument("--resume", action="store_true", help="go on where the file of --out ends")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    before = json.loads(args.out.read_text()) if args.resume and args.out.exists() else None
    seed = before["seed"] if before else args.seed
    print(f"seed {seed}, {args.rounds} rounds", flush=True)
    with tempfile.TemporaryDirectory() as folder, Servers(Path(folder)) as servers:
        world = before["next_world"] if before else 0
        with Campaign(servers, Path(folder), seed, world) as campaign:
            campaign.tally.update(before["counts"] if before else {})
            result = Result(args, campaign, seed, before)
            campaign.after_round = result.write
            try:
                campaign.play(args.rounds - campaign.tally["rounds"])
            except Broken as broken:
                result.violations.append(str(broken).splitlines()[0])
                print(broken, file=sys.stderr)
            except SystemExit:
                result.stopped = True
                raise
            finally:
                result.write()
    return 1 if result.violations else 0


class Result:
    """What there is to say about a run, on the disk."""

    def __init__(self, args: argparse.Namespace, campaign: Campaign, seed: int, before: dict | None) -> None:
        self.args, self.campaign, self.seed = args, campaign, seed
        self.began = before["began"] if before else stamp()
        self.violations: list[str] = list(before["violations"]) if before else []
        self.stopped = False

    def write(self) -> None:
        counts = self.campaign.tally
        # The world in use is begun anew by whoever goes on.
        world = self.campaign.number + (self.campaign.world is not None)
        document = {
            "what": "make crash-test",
            "seed": self.seed,
            "rounds": counts["rounds"],
            "rounds_wanted": self.args.rounds,
            "violations": self.violations,
            "began": self.began,
            "ended": stamp(),
            "machine": machine(),
            "next_world": world,
            "counts": dict(sorted(counts.items())),
        }
        if self.args.out:
            self.args.out.parent.mkdir(parents=True, exist_ok=True)
            partial = self.args.out.with_suffix(".part")
            partial.write_text(json.dumps(document, indent=2) + "\n")
            partial.replace(self.args.out)
            self.args.out.with_suffix(".md").write_text(page(document))


def page(document: dict) -> str:
    """The result for people."""
    counts = document["counts"]
    broken = "\n".join(f"- {violation}" for violation in document["violations"]) or "No violation was found."
    rows = "\n".join(f"| {what} | {count:,} |" for what, count in counts.items() if what not in ("rounds", "seconds"))
    return f"""# The long crash test

`make crash-test ROUNDS={document["rounds_wanted"]} SEED={document["seed"]}`, from {document["began"]} to {document["ended"]}, on {document["machine"]}:
{document["rounds"]:,} of {document["rounds_wanted"]:,} rounds. {broken}

| | count |
|---|---|
{rows}

A round adds posts, kills somebody, asks the oracle, and brings the dead back ([campaign.py](../support/campaign.py)). "At" is a kill at the named
step, "before" one that came before the step was reached, "slept" a process that was stopped for longer than its session. A world is
a set of topics and tables, which after forty rounds is brought to its end and compared from scratch.
"""


def stamp() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{os.cpu_count()} cores {platform.machine()}, {memory:.0f} GiB, shared with other work"


if __name__ == "__main__":
    sys.exit(main())
