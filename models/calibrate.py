"""Temperatures and calibration errors of softmax heads (Guo et al. 2017, "On Calibration of Modern Neural Networks"), in numpy.

What is called cross-fitted had no say in its own temperature: posts are halved at random, and each half is measured with the
temperature of the other. Logits are [posts, classes], labels [posts] in 0..classes; anything that numpy reads as an array will do.
Everything is deterministic.
"""

from __future__ import annotations

import numpy as np

BINS = 15
# Random halvings that a cross-fitted figure is the mean of: one alone moves the error of a small set by half its size.
SPLITS = 20


def head_probabilities(record: dict, head: str) -> dict[str, float] | None:
    """What a line of `undertone score` says of a head, by label; None where the text could not be scored."""
    return None if "error" in record else record[head]["probabilities"]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    return np.exp(log_softmax(logits))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The number by which dividing the logits brings the mean confidence to the accuracy; by bisection of its logarithm, in [1/20, 20].

    Not the one that makes the labels most likely: training weighs all classes alike and posts do not hold them alike, so the likelihood is bought
    by the classes' shares as well, and leaves confidence, which is what people read, above the accuracy.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    accuracy = np.mean(logits.argmax(axis=-1) == labels)
    low, high = -np.log(20), np.log(20)
    while high - low > 1e-6:
        middle = (low + high) / 2
        # Confidence falls as the temperature rises.
        if softmax(logits / np.exp(middle)).max(axis=-1).mean() > accuracy:
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def cross_fitted(logits: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities [posts, classes], each half of the posts calibrated on the other."""
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    half = np.random.default_rng(seed).permutation(len(labels)) < len(labels) // 2
    probabilities = np.empty_like(logits)
    for here, there in ((half, ~half), (~half, half)):
        probabilities[here] = softmax(logits[here] / fit_temperature(logits[there], labels[there]))
    return probabilities


def cross_fitted_error(logits: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Calibration error of `cross_fitted`, the mean over SPLITS halvings."""
    return float(np.mean([calibration_error(cross_fitted(logits, labels, seed + split), labels) for split in range(SPLITS)]))


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of the most probable class: the mean gap between confidence and accuracy, weighted by how full the bins are."""
    bins = reliability(probabilities, labels)
    return sum(b["posts"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / max(sum(b["posts"] for b in bins), 1)


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> list[dict]:
    """The bins that are not empty, of BINS equal widths of confidence: `posts`, mean `confidence`, and `accuracy`."""
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    chosen = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {"posts": int(here.sum()), "confidence": float(confidence[here].mean()), "accuracy": float(right[here].mean())}
        for here in (chosen == b for b in range(BINS))
        if here.any()
    ]
