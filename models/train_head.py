#!/usr/bin/env python3
"""Trains the sentiment head of models/sentiment on frozen embeddings, and measures what ships.

    make model                                  what this is usually started by
    models/train_head.py --data ../shared/data  the same by hand, with numpy at hand and the binary built

1. `undertone score --embed` turns every text of sentiment/train.tsv and sentiment/val.tsv into its pooled vector, so
   normaliser, tokeniser and encoder are the server's own.
2. Cross-validation on train alone chooses the strength of the regularisation, and whether the head reads the pooled
   vector or the normalised embedding.
3. The head is fitted to all of train; its temperature to val.
4. The finished folder scores val through `undertone score`; what comes out is what report.json and the card say.

Writes heads.safetensors and undertone.json into the model folder, and report.json beside this script. Takes about 20
CPU-minutes, most of them for cross-validation, and 1 GB of memory. The same binary, data and seed give the same head.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import struct
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

import evaluate
import logistic

HERE = Path(__file__).resolve().parent
LABELS = ["negative", "neutral", "positive"]
FOLDS = 5
# Per standardised feature, beside a mean loss.
L2 = [0.001, 0.003, 0.01, 0.03, 0.1]
# What a head can read, as undertone.json calls it.
INPUTS = {
    "pooled": lambda pooled: pooled,
    "embedding": lambda pooled: pooled / np.linalg.norm(pooled, axis=1, keepdims=True),
}
MANIFEST = {
    "format": 1,
    "name": "undertone-sentiment",
    "normalizer": "social-1",
    "max_tokens": 256,
    "pooling": "mean",
    "embedding": {"normalize": True},
    "heads": [],
    "sentiment": {"head": "sentiment", "negative": "negative", "neutral": "neutral", "positive": "positive"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data", help="has sentiment/train.tsv and val.tsv")
    parser.add_argument("--model", type=Path, default=HERE / "sentiment", help="folder with config.json, tokenizer.json, model.safetensors")
    parser.add_argument("--binary", type=Path, default=HERE.parent / "target" / "release" / "undertone")
    parser.add_argument("--seed", type=int, default=1, help="of the folds, the calibration halves and the bootstrap [%(default)s]")
    options = parser.parse_args()
    try:
        train(options.data / "sentiment", options.model, options.binary, options.seed)
    except evaluate.Unusable as error:
        print(f"train_head: {error}", file=sys.stderr)
        return 2
    return 0


def train(data: Path, model: Path, binary: Path, seed: int) -> None:
    texts, y = {}, {}
    for split in ("train", "val"):
        labels, texts[split] = evaluate.read_gold(data / f"{split}.tsv")
        y[split] = np.array([LABELS.index(label) for label in labels])
        say(f"{split}: {len(labels)} posts, {dict(zip(LABELS, np.bincount(y[split]).tolist()))}")
    pooled = {split: pooled_vectors(binary, model, texts[split]) for split in texts}

    table = cross_validate(pooled["train"], y["train"], seed)
    best = max(table, key=lambda row: row["macro_recall"])
    reads, l2 = best["input"], best["l2"]
    say(f"chosen: {reads}, l2 {l2}")
    x = {split: INPUTS[reads](vectors.astype(np.float64)) for split, vectors in pooled.items()}
    head = logistic.fit(x["train"], y["train"], len(LABELS), l2)
    logits = head.logits(x["val"])
    temperature = round(logistic.fit_temperature(logits, y["val"]), 4)
    write_model(model, head, reads, temperature)

    scored = score(binary, model, texts["val"])
    probabilities = [line["sentiment"]["probabilities"] for line in scored]
    names = [LABELS[label] for label in y["val"]]
    measures = evaluate.measure(names, probabilities)
    predicted = np.array([LABELS.index(max(p, key=p.__getitem__)) for p in probabilities])
    report = {
        "date": datetime.date.today().isoformat(),
        "seed": seed,
        "model": scored[0]["model"],
        "train": {"posts": len(y["train"]), "labels": dict(zip(LABELS, np.bincount(y["train"]).tolist()))},
        "head": {"input": reads, "l2": l2, "temperature": temperature},
        "cross_validation": table,
        "val": rounded(asdict(measures))
        | {"macro_recall_95": rounded(logistic.bootstrap_interval(y["val"], predicted, len(LABELS), seed))}
        | {"ece_by_temperature": rounded(calibration(logits, y["val"], names, seed))},
    }
    (HERE / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    say(f"val, scored by {binary.name}:\n{evaluate.table(measures)}")


def pooled_vectors(binary: Path, model: Path, texts: list[str]) -> np.ndarray:
    """The encoder's pooled vectors, [texts, width], before any head exists: from a copy of the folder without heads."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            if not (model / name).exists():
                raise evaluate.Unusable(f"{model / name} is missing; `scripts/setup.py run` fetches the encoder")
            (Path(folder) / name).symlink_to((model / name).resolve())
        bare = {key: value for key, value in MANIFEST.items() if key not in ("heads", "sentiment")}
        (Path(folder) / "undertone.json").write_text(json.dumps(bare | {"embedding": {"normalize": False}}))
        scored = score(binary, Path(folder), texts, "--embed")
    return np.array([line["embedding"] for line in scored], dtype=np.float32)


def score(binary: Path, model: Path, texts: list[str], *flags: str) -> list[dict]:
    """The lines of `undertone score` for these texts, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "texts.jsonl", Path(folder) / "scored.jsonl"
        source.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
        command = [binary, "score", "--model", model, "--input", source, "--output", target, *flags]
        try:
            status = subprocess.run(command).returncode
        except OSError as error:
            raise evaluate.Unusable(f"cannot run {binary}: {error.strerror}; build it with `make build`") from error
        if status != 0:
            raise evaluate.Unusable(f"`undertone score` ended with status {status}; see above")
        scored = [json.loads(line) for line in evaluate.lines(target)]
    if [str(line["id"]) for line in scored] != [str(i) for i in range(len(texts))]:
        raise evaluate.Unusable("`undertone score` did not answer one line a text, in their order")
    return scored


def cross_validate(pooled: np.ndarray, y: np.ndarray, seed: int) -> list[dict]:
    """Macro recall of every candidate over folds of the training posts; one row a candidate."""
    fold = np.random.default_rng(seed).permutation(len(y)) % FOLDS
    table = []
    for reads, prepare in INPUTS.items():
        x = prepare(pooled.astype(np.float64))
        for l2 in L2:
            predicted = np.empty_like(y)
            for held_out in (fold == k for k in range(FOLDS)):
                head = logistic.fit(x[~held_out], y[~held_out], len(LABELS), l2)
                predicted[held_out] = head.logits(x[held_out]).argmax(axis=1)
            recall = logistic.macro_recall(y, predicted, len(LABELS))
            say(f"cross-validation: {reads:<9} l2 {l2:<6} macro recall {100 * recall:.2f}")
            table.append({"input": reads, "l2": l2, "macro_recall": round(recall, 5)})
    return table


def calibration(logits: np.ndarray, y: np.ndarray, names: list[str], seed: int) -> dict[str, float]:
    """Calibration error on val without a temperature, and with one that each half of val has from the other."""
    named = lambda rows: [dict(zip(LABELS, row)) for row in rows.tolist()]  # noqa: E731
    return {
        "none": evaluate.measure(names, named(logistic.softmax(logits))).ece,
        "cross_fitted": evaluate.measure(names, named(logistic.cross_fitted(logits, y, seed))).ece,
    }


def write_model(folder: Path, head: logistic.Head, reads: str, temperature: float) -> None:
    """Writes heads.safetensors and undertone.json; each takes its place whole."""
    tensors = {"heads.sentiment.weight": head.weight, "heads.sentiment.bias": head.bias}
    replace(folder / "heads.safetensors", safetensors(tensors))
    sentiment = {"name": "sentiment", "labels": LABELS, "kind": "softmax", "temperature": temperature}
    sentiment |= {"input": reads, "file": "heads.safetensors"}
    replace(folder / "undertone.json", (json.dumps(MANIFEST | {"heads": [sentiment]}, indent=2) + "\n").encode())


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """The tensors as fp32 in the safetensors format: length of the header, header, data."""
    header, data = {}, b""
    for name, tensor in tensors.items():
        values = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data is aligned
    return struct.pack("<Q", len(text)) + text + data


def replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.rename(path)


def rounded(value):
    """Five decimals: beyond them the figures differ between processors."""
    match value:
        case float():
            return round(value, 5)
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item) for item in value]
        case _:
            return value


def say(message: str) -> None:
    print(message, flush=True)


if __name__ == "__main__":
    sys.exit(main())
