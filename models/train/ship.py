#!/usr/bin/env python3
"""Makes the model folder that the server loads out of finished training runs.

    models/train/ship.py --runs runs/1 runs/2 runs/3 --out models/sentiment

The weights are the mean over the runs (a model soup: Wortsman et al., arXiv:2203.05482; runs from one base encoder lie in one basin), in
fp16. One temperature a head is then fitted to the val posts' scores as the server gives them, and written to undertone.json.
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
from train import NORMALIZER, ROOT, TASKS

import calibrate
from evaluation.data import label_names, read_val
from evaluation.scoring import score

NAME = "undertone-sentiment"
# What the server reads of a text. Training saw at most 64 tokens; the encoder knows positions up to 512.
MAX_TOKENS = 256


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of finished runs")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "sentiment", help="has config.json and tokenizer.json already [%(default)s]")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "undertone")
    return parser.parse_args(words)


def ship(options: argparse.Namespace) -> None:
    weights = [load_file(run / "model.safetensors") for run in options.runs]
    mean = {name: torch.stack([each[name].float() for each in weights]).mean(0).half() for name in weights[0]}
    save_file(mean, options.out / "model.safetensors")
    (options.out / "model.safetensors").chmod(0o644)
    write_manifest(options, dict.fromkeys(TASKS, 1.0))
    temperatures = {task: fit(options, task) for task in TASKS}
    write_manifest(options, temperatures)
    print(json.dumps({"runs": [str(run) for run in options.runs], "temperatures": temperatures}))


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
