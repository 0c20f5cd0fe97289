#!/usr/bin/env python3
"""Measures scored lines against gold labels: macro recall, recall a class, accuracy, calibration.

    undertone score --input val.jsonl --output scored.jsonl
    models/evaluate.py --gold val.tsv --scored scored.jsonl --expect 59.1 --tolerance 0.1

Gold is `label<TAB>text`, one post a line, no header, no quoting; labels are numbers that the `labels.txt` beside the
file names (`number<TAB>name`), or names. Scored lines are those of `undertone score`, one per gold line, in its order.
A line with an `error` in place of scores counts as wrong. Shares are printed in percent.

Exit status: 0; 1 if macro recall is further than --tolerance from --expect; 2 if the files do not fit together.
Needs Python 3.10 and its standard library.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

BINS = 15


class Unusable(Exception):
    """The files cannot be compared; says why."""


@dataclass(frozen=True)
class Measures:
    """What a head is worth on labelled data. Shares are in [0, 1]."""

    n: int
    errors: int
    macro_recall: float
    # Of macro recall, from the binomial variance of each class's recall.
    standard_error: float
    recall: dict[str, float]
    accuracy: float
    # Expected calibration error of the most probable label: 15 bins of equal width, weighted by how full they are.
    ece: float


def measure(gold: list[str], scored: list[dict[str, float] | None]) -> Measures:
    """Compares gold labels with one distribution a post ({label: probability}), or None where scoring failed.

    The label of a distribution is its most probable one; of equal ones the first.
    """
    if len(gold) != len(scored):
        raise Unusable(f"{len(gold)} gold labels but {len(scored)} scored lines; each post must be one line in both")
    if not gold:
        raise Unusable("there is nothing to compare")
    predicted = [max(p, key=p.__getitem__) if p else None for p in scored]
    recall, variance = {}, 0.0
    for label in sorted(set(gold)):
        hits = [p == label for g, p in zip(gold, predicted) if g == label]
        share = sum(hits) / len(hits)
        recall[label] = share
        variance += share * (1 - share) / len(hits)
    correct = [g == p for g, p in zip(gold, predicted)]
    confident = [(max(p.values()), right) for p, right in zip(scored, correct) if p]
    return Measures(
        n=len(gold),
        errors=sum(p is None for p in scored),
        macro_recall=sum(recall.values()) / len(recall),
        standard_error=math.sqrt(variance) / len(recall),
        recall=recall,
        accuracy=sum(correct) / len(correct),
        ece=calibration_error(confident),
    )


def calibration_error(confident: list[tuple[float, bool]]) -> float:
    """Expected calibration error of (confidence, was it right) pairs (Guo et al. 2017, eq. 3)."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in confident:
        bins.setdefault(min(int(confidence * BINS), BINS - 1), []).append((confidence, right))
    gaps = (abs(sum(c for c, _ in b) - sum(r for _, r in b)) for b in bins.values())
    return sum(gaps) / len(confident) if confident else 0.0


def read_gold(path: Path) -> tuple[list[str], list[str]]:
    """Labels, by name, and texts."""
    names_file = path.with_name("labels.txt")
    names = dict(line.split("\t", 1) for line in lines(names_file)) if names_file.exists() else {}
    labels, texts = [], []
    for number, line in enumerate(lines(path), 1):
        label, tab, text = line.partition("\t")
        if not tab:
            raise Unusable(f"{path}:{number}: not label<TAB>text")
        labels.append(names.get(label, label))
        texts.append(text)
    return labels, texts


def read_scored(path: Path, head: str) -> list[dict[str, float] | None]:
    """The head's probabilities of each line."""
    scored = []
    for number, line in enumerate(lines(path), 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise Unusable(f"{path}:{number}: not JSON: {error}") from error
        if "error" in record:
            scored.append(None)
        elif head in record:
            scored.append(record[head]["probabilities"])
        else:
            raise Unusable(f"{path}:{number}: no head {head!r}; there are {', '.join(record)}")
    return scored


def lines(path: Path) -> list[str]:
    """Lines end at line feeds alone: posts hold the other separators that `splitlines` would cut at."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise Unusable(f"cannot read {path}: {error.strerror}") from error
    return text.removesuffix("\n").split("\n") if text else []


def table(measures: Measures) -> str:
    percent = lambda share: f"{100 * share:.2f}"  # noqa: E731
    rows = [("macro recall", f"{percent(measures.macro_recall)} (standard error {percent(measures.standard_error)})")]
    rows += [(f"recall {label}", percent(share)) for label, share in measures.recall.items()]
    rows += [("accuracy", percent(measures.accuracy)), ("calibration error", percent(measures.ece))]
    rows += [("posts", f"{measures.n}, of which {measures.errors} could not be scored")]
    return "\n".join(f"{name:<18} {value}" for name, value in rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gold", type=Path, required=True, help="label<TAB>text")
    parser.add_argument("--scored", type=Path, required=True, help="JSON lines of `undertone score`")
    parser.add_argument("--head", default="sentiment")
    parser.add_argument("--expect", type=float, metavar="R", help="macro recall that there should be, in percent")
    parser.add_argument("--tolerance", type=float, default=0.1, metavar="T", help="in percentage points [%(default)s]")
    parser.add_argument("--json", action="store_true", help="print JSON, with shares in [0, 1]")
    options = parser.parse_args(arguments)
    try:
        measures = measure(read_gold(options.gold)[0], read_scored(options.scored, options.head))
    except Unusable as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(measures)) if options.json else table(measures))
    if options.expect is not None and abs(100 * measures.macro_recall - options.expect) > options.tolerance:
        found = f"macro recall is {100 * measures.macro_recall:.2f}"
        print(f"evaluate: {found}, expected {options.expect} ± {options.tolerance}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
