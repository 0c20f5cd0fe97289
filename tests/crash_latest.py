#!/usr/bin/env python3
"""The long kill test of Qdrant, OpenSearch and ClickHouse: `make crash-latest ROUNDS=40 SEED=7`.

Rounds are those of support/rounds.py, and the oracle looks at all three stores after each. The result is written after every
round. Exit status 1 with the first violation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent / "scripts")]

from servers.clickhouse import ClickHouse  # noqa: E402
from servers.kafka import Kafka  # noqa: E402
from servers.opensearch import OpenSearch  # noqa: E402
from servers.qdrant import Qdrant  # noqa: E402
from support.latest import Stores, World  # noqa: E402
from support.rounds import Broken, Rounds  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="how often something goes wrong (40)")
    parser.add_argument("--restarts", type=int, default=3, help="how often OpenSearch is killed at most (3)")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000, help="repeats a run; printed if left out")
    parser.add_argument("--out", type=Path, help="where the result is written, as JSON")
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.rounds} rounds", flush=True)
    result = {
        "began": now(), "seed": args.seed, "rounds": 0, "machine": f"{os.cpu_count()} cores {platform.machine()}", "violation": None,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            Kafka(folder / "kafka") as kafka,
            OpenSearch(folder / "opensearch") as opensearch,
            ClickHouse(folder / "clickhouse", password="secret") as clickhouse,
            Qdrant(folder / "qdrant", key="secret") as qdrant,
        ):
            world = World(kafka, Stores(folder, clickhouse, opensearch, qdrant), folder)
            with Rounds(world, args.seed) as rounds:
                for number in range(args.rounds):
                    try:
                        rounds.play(args.restarts)
                        rounds.look()
                    except Broken as broken:
                        result["violation"] = str(broken)
                    result |= {"rounds": number + 1, "ended": now(), "load": round(os.getloadavg()[0], 1), "counts": rounds.report()}
                    if args.out:
                        args.out.write_text(json.dumps(result, indent=2) + "\n")
                    print(f"round {number + 1}: {'VIOLATION' if result['violation'] else 'whole'}", flush=True)
                    if result["violation"]:
                        print(result["violation"], flush=True)
                        return 1
    print(json.dumps(result, indent=2))
    return 0


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main())
