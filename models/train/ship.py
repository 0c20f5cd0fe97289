#!/usr/bin/env python3
"""Makes the model folder that the server loads out of finished training runs.

    models/train/ship.py --runs runs/1 runs/2 runs/3 --out models/sentiment
    models/train/ship.py --runs runs/1 runs/2 runs/3 --out runs/mean --mean-only       weights that other runs start from

The weights are the mean over the runs (a model soup: Wortsman et al., arXiv:2203.05482; runs from one base encoder lie in one basin), in
fp16. The mean's projection is then fitted once more, by ridge regression of the base encoder's embeddings on the mean's pooled vectors of
training posts; and one temperature a head to the val posts' scores. Both see what the server computes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.setdlopenflags(os.RTLD_LAZY)  # a torch without NVIDIA's libraries beside it

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import network
from data import read
from train import NORMALIZER, ROOT, TASKS

import calibrate
from evaluation import embedding
from evaluation.data import label_names, read_val
from evaluation.scoring import score

NAME = "undertone-sentiment"
# What the server reads of a text. Training saw at most 64 tokens; the encoder knows positions up to 512.
MAX_TOKENS = 256
# Training posts that the projection is fitted on: 20 times its width.
FITTED_ON = 8_000
# How strongly it is held to the trained projection: for what few posts tell apart, and little beside that many.
RIDGE = 10.0


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of finished runs")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "sentiment", help="has config.json and tokenizer.json already [%(default)s]")
    parser.add_argument("--mean-only", action="store_true", help="write the mean of the weights and nothing else")
    parser.add_argument("--base", type=Path, default=embedding.BASE, help="folder of the base encoder [%(default)s]")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "undertone")
    return parser.parse_args(words)


def ship(options: argparse.Namespace) -> None:
    weights = [load_file(run / "model.safetensors") for run in options.runs]
    mean = {name: torch.stack([each[name].float() for each in weights]).mean(0).half() for name in weights[0]}
    options.out.mkdir(parents=True, exist_ok=True)
    write_weights(options, mean)
    if options.mean_only:
        return
    write_manifest(options, dict.fromkeys(TASKS, 1.0))
    write_weights(options, mean | project(options, mean))
    temperatures = {task: fit(options, task) for task in TASKS}
    write_manifest(options, temperatures)
    print(json.dumps({"runs": [str(run) for run in options.runs], "temperatures": temperatures}))


def write_weights(options: argparse.Namespace, weights: dict[str, torch.Tensor]) -> None:
    file = options.out / "model.safetensors"
    save_file(weights, file)
    file.chmod(0o644)


def project(options: argparse.Namespace, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The projection from the model's pooled vectors to the base encoder's embeddings, in place of the trained one."""
    texts = read(options.data / "sentiment" / "train.tsv")[0][:FITTED_ON]
    target = embedding.base_embeddings(options.binary, options.base, options.out, texts)
    records = embedding.pooled(options.binary, options.out, options.out, texts)
    kept = [row for row, record in enumerate(records) if record.get("embedding") and target[row].any()]
    vectors = np.array([records[row]["embedding"] for row in kept], dtype=np.float64)
    names = [f"{network.PROJECTION}.{kind}" for kind in ("weight", "bias")]
    found = refit(vectors, target[kept].astype(np.float64), *(weights[name].double().numpy() for name in names))
    return {name: torch.tensor(array).half().contiguous() for name, array in zip(names, found)}


def refit(vectors: np.ndarray, target: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of the linear map from `vectors` to `target` [texts, width] of least squares, held to `weight` and `bias` by RIDGE."""
    x = np.column_stack([vectors, np.ones(len(vectors))])
    before = np.vstack([weight.T, bias])
    # Only the direction of what it gives counts, so the old map is brought to the target's length first.
    given = x @ before
    before *= (given * target).sum() / (given * given).sum()
    after = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ target + RIDGE * before)
    return after[:-1].T, after[-1]


def fit(options: argparse.Namespace, task: str) -> float:
    """The temperature of a head, on its val posts as the server scores them with none."""
    val = read_val(options.data, task)
    scored = [calibrate.head_probabilities(record, task) for record in score(options.binary, options.out, val.texts)]
    # A post of nothing has no score, and no say.
    rows = [([each[label] for label in val.labels], gold) for each, gold in zip(scored, val.gold) if each]
    probabilities, gold = map(np.array, zip(*rows))
    return round(float(calibrate.fit_temperature(np.log(np.maximum(probabilities, 1e-9)), gold)), 4)


def write_manifest(options: argparse.Namespace, temperatures: dict[str, float]) -> None:
    heads = [
        {"name": task, "labels": list(label_names(options.data / task).values()), "kind": "softmax", "temperature": temperatures[task], "input": "pooled"}
        for task in TASKS
    ]
    manifest = {
        "format": 1,
        "name": NAME,
        "normalizer": NORMALIZER,
        "languages": ["eng"],
        "max_tokens": min(MAX_TOKENS, network.read_config(options.out)["max_position_embeddings"]),
        "pooling": "mean",
        "embedding": {"normalize": True, "projection": network.PROJECTION},
        "heads": heads,
        "sentiment": {"head": "sentiment", "negative": "negative", "neutral": "neutral", "positive": "positive"},
    }
    (options.out / "undertone.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    ship(arguments())
