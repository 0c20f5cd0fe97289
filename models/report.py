#!/usr/bin/env python3
"""Measures the shipped model through `undertone score`, and brings report.json, the plot and the card in line.

    make model-report                                  what this is usually started by
    models/report.py --model FOLDER --out FOLDER       another model; the card is left alone, the blocks are printed

Asks nothing but the binary: the validation posts of every head that the model has, in fp32, int8 and bf16, the behavioural suite
(models/suite), and the base encoder for the embedding. Temperatures stand in undertone.json and were fitted on
these same posts, so calibration is reported cross-fitted (models/calibrate.py). The same binary, model, data and processor give the same
report, byte for byte. Takes three to six minutes on two cores, and 1 GB of memory. Needs numpy.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import calibrate
import suite
from evaluation import card, embedding, metrics
from evaluation.data import METRICS, Labelled, Unusable, read_val
from evaluation.plot import reliability_svg
from evaluation.scoring import BINARY, manifest, score
from evaluation.slices import slices
from suite.probes import PROBES

HERE = Path(__file__).resolve().parent
SEED = 1
# Beside fp32. A processor without bf16 rounds alike, in twice the time.
PRECISIONS = ("int8", "bf16")
# A slice with fewer posts has an interval too wide to say anything.
FEWEST = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=HERE / "sentiment")
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data", help="has TASK/val.tsv and TASK/labels.txt")
    parser.add_argument("--base", type=Path, default=embedding.BASE, help="folder of the base encoder [%(default)s]")
    parser.add_argument("--binary", type=Path, default=BINARY)
    parser.add_argument("--out", type=Path, default=HERE, help="where report.json and plots/ go [models/]")
    parser.add_argument("--card", type=Path, help="card to bring in line [README.md beside this script, unless --out says otherwise]")
    options = parser.parse_args()
    page = options.card or (HERE / "README.md" if options.out == HERE else None)
    try:
        report = rounded(measure(options.binary, options.model, options.data, options.base))
        files = {options.out / "report.json": json.dumps(report, indent=2, ensure_ascii=False) + "\n"}
        files[options.out / "plots" / "reliability.svg"] = plot(report)
        if page:
            files[page] = card.render(page.read_text(encoding="utf-8"), report)
    except Unusable as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        say(f"wrote {path}")
    print("\n\n".join(block(report) for block in card.BLOCKS.values()))
    return 0


def plot(report: dict) -> str:
    return reliability_svg({name: head["calibration"] for name, head in report["heads"].items()})


def measure(binary: Path, model: Path, data: Path, base: Path) -> dict:
    """The whole report. Shares are in [0, 1]."""
    known = {head["name"]: head for head in manifest(model)["heads"]}
    vals = [read_val(data, task) for task in METRICS if task in known]
    if not vals or vals[0].task != "sentiment":
        raise Unusable(f"{model} has no head `sentiment`; there are {', '.join(known) or 'none'}")
    say(f"scoring {sum(len(val.texts) for val in vals):,} validation posts in fp32")
    exact = scored_by_task(binary, model, vals, "fp32")
    report = {
        "seed": SEED,
        "model": {**one(exact)["model"], "heads": list(known)},
        "heads": {val.task: measure_head(val, exact[val.task], known[val.task].get("temperature", 1.0)) for val in vals},
        "slices": {val.task: measure_slices(val, exact[val.task]) for val in vals},
        "suite": measure_suite(binary, model),
        "probes": measure_probes(binary, model),
        "precisions": {},
    }
    ours = embedding.embeddings(exact["sentiment"])
    for precision in PRECISIONS:
        say(f"scoring them in {precision}")
        report["precisions"][precision] = compare(vals, exact, scored_by_task(binary, model, vals, precision), ours)
    say("embedding the posts with the base encoder")
    report["embedding"] = embedding.compare(ours, embedding.base_embeddings(binary, base, model, vals[0].texts))
    return report


def scored_by_task(binary: Path, model: Path, vals: Sequence[Labelled], precision: str, embed: bool = True) -> dict[str, list[dict]]:
    """Each task's records; all tasks go through one process."""
    records = iter(score(binary, model, [text for val in vals for text in val.texts], precision=precision, embed=embed))
    return {val.task: [next(records) for _ in val.texts] for val in vals}


def one(scored: dict[str, list[dict]]) -> dict:
    """A record that holds a score."""
    for record in (record for records in scored.values() for record in records):
        if "error" not in record:
            return record
    raise Unusable("no post could be scored")


def predictions(val: Labelled, scored: Sequence[dict]) -> list[int | None]:
    """What the head says of each post, counted in the data's labels."""
    labels = {record[val.task]["label"] for record in scored if "error" not in record}
    if unknown := labels - set(val.labels):
        raise Unusable(f"head {val.task} says {', '.join(sorted(unknown))}, which labels.txt does not have: {', '.join(val.labels)}")
    return [None if "error" in record else val.labels.index(record[val.task]["label"]) for record in scored]


def measure_head(val: Labelled, scored: Sequence[dict], temperature: float) -> dict:
    predicted = predictions(val, scored)
    matrix = metrics.confusion(val.gold, predicted, len(val.labels))
    metric = metrics.metric(METRICS[val.task], val.labels)
    by_class = zip(val.labels, matrix.sum(axis=1).tolist(), metrics.precision(matrix), metrics.recall(matrix), metrics.f1(matrix))
    return {
        "metric": METRICS[val.task],
        "posts": len(val.gold),
        "errors": predicted.count(None),
        "value": metric(matrix),
        "interval": metrics.interval(metric, matrix, SEED),
        "accuracy": metrics.accuracy(matrix),
        "classes": {label: {"posts": n, "precision": p, "recall": r, "f1": f} for label, n, p, r, f in by_class},
        "confusion": matrix.tolist(),
        "calibration": measure_calibration(val, scored, temperature),
    }


def measure_calibration(val: Labelled, scored: Sequence[dict], temperature: float) -> dict:
    kept = [(gold, p) for gold, record in zip(val.gold, scored) if (p := calibrate.head_probabilities(record, val.task))]
    gold = np.array([g for g, _ in kept])
    shipped = np.array([[p[label] for label in val.labels] for _, p in kept], dtype=np.float64)
    # Up to a constant a post, which the softmax takes away again.
    logits = temperature * np.log(np.maximum(shipped, 1e-12))
    return {
        "temperature": temperature,
        "ece": {
            "none": calibrate.calibration_error(calibrate.softmax(logits), gold),
            "shipped": calibrate.calibration_error(shipped, gold),
            "cross_fitted": calibrate.cross_fitted_error(logits, gold, SEED),
        },
        "bins": calibrate.reliability(calibrate.cross_fitted(logits, gold, SEED), gold),
    }


def measure_slices(val: Labelled, scored: Sequence[dict]) -> dict:
    """By slice, the posts `with` it and those `without`, by the head's own metric; a slice of fewer than FEWEST posts has only its size."""
    predicted = predictions(val, scored)
    metric = metrics.metric(METRICS[val.task], val.labels)

    def row(positions: Sequence[int]) -> dict:
        if len(positions) < FEWEST:
            return {"posts": len(positions)}
        matrix = metrics.confusion([val.gold[i] for i in positions], [predicted[i] for i in positions], len(val.labels))
        return {"posts": len(positions), "value": metric(matrix), "interval": metrics.interval(metric, matrix, SEED)}

    everything = range(len(val.texts))
    return {name: {"with": row(inside), "without": row(sorted(set(everything) - set(inside)))} for name, inside in slices(val.texts).items()}


def measure_suite(binary: Path, model: Path) -> dict:
    cases = suite.cases()
    texts = suite.texts(cases)
    say(f"scoring the suite: {len(cases):,} cases of {len(texts):,} texts")
    scored = dict(zip(texts, score(binary, model, texts)))
    return {"cases": len(cases), "capabilities": suite.count(cases, scored), "shifts": suite.shifts(cases, scored)}


def measure_probes(binary: Path, model: Path) -> dict:
    scored = score(binary, model, [text for text, _, _ in PROBES])
    said = ["error" if "error" in record else record["sentiment"]["label"] for record in scored]
    failures = [
        {"text": text, "said": label, "right": list(right), "about": about}
        for (text, right, about), label in zip(PROBES, said)
        if label not in right
    ]
    return {"sentences": len(PROBES), "failures": failures}


def compare(vals: Sequence[Labelled], exact: dict[str, list[dict]], other: dict[str, list[dict]], ours: np.ndarray) -> dict:
    """Another precision beside fp32."""
    heads = {}
    for val in vals:
        there, here = predictions(val, exact[val.task]), predictions(val, other[val.task])
        matrix = metrics.confusion(val.gold, here, len(val.labels))
        value = metrics.metric(METRICS[val.task], val.labels)(matrix)
        same = sum(a == b for a, b in zip(there, here)) / len(here)
        heads[val.task] = {"value": value, "same_label": same, "errors": here.count(None)}
    return {"heads": heads, "embedding_cosine": (embedding.embeddings(other["sentiment"]) * ours).sum(axis=1).mean()}


def rounded(value):
    """Five decimals: beyond them the figures differ between processors."""
    match value:
        case float() | np.floating() | np.ndarray():
            return round(float(value), 5)
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item) for item in value]
        case _:
            return value


def say(message: str) -> None:
    print(f"report: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
