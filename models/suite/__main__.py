"""Runs the behavioural suite against a model folder, and prints pass rates and failures.

    python3 models/suite --model models/sentiment --failures 3

Needs the binary (`make build`), Python 3.10, and its standard library.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import suite  # noqa: E402
from evaluation.data import Unusable  # noqa: E402
from evaluation.scoring import BINARY, score  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=HERE.parent / "sentiment")
    parser.add_argument("--binary", type=Path, default=BINARY)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--failures", type=int, default=0, metavar="N", help="show up to N failures of every template [%(default)s]")
    options = parser.parse_args()
    cases = suite.cases()
    texts = suite.texts(cases)
    try:
        scored = dict(zip(texts, score(options.binary, options.model, texts, precision=options.precision)))
    except Unusable as error:
        print(f"suite: {error}", file=sys.stderr)
        return 2
    for capability, row in suite.count(cases, scored).items():
        print(f"{capability:<18} {row['passed']:>4} of {row['cases']:>4}  {100 * row['passed'] / row['cases']:5.1f} %")
        for name, cell in row["names"].items():
            print(f"  {name:<44} {cell['passed']:>3} of {cell['cases']:>3}")
            failed = [case for case in cases if (case.capability, case.name) == (capability, name) and not case.passes(scored)]
            for case in failed[: options.failures]:
                print("      " + "  <>  ".join(f"{text} [{told(scored[text])}]" for text in case.texts()))
    return 0


def told(record: dict) -> str:
    if "error" in record:
        return "error"
    polarity = record.get("polarity")
    return record.get("sentiment", {}).get("label", "?") + ("" if polarity is None else f" {polarity:+.2f}")


if __name__ == "__main__":
    sys.exit(main())
