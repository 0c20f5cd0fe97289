"""Metrics as functions of the confusion matrix, so that the bootstrap is a draw of matrices and not of posts.

A confusion matrix is [..., classes, classes + 1]: gold by predicted, and in the last column what could not be scored, which is wrong
for everybody. The leading axes are draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Metric = Callable[[np.ndarray], np.ndarray]

DRAWS = 10_000


def confusion(gold: Sequence[int], predicted: Sequence[int | None], classes: int) -> np.ndarray:
    """Counts [classes, classes + 1]; None is what could not be scored."""
    matrix = np.zeros((classes, classes + 1), dtype=np.int64)
    for g, p in zip(gold, predicted, strict=True):
        matrix[g, classes if p is None else p] += 1
    return matrix


def hits(matrix: np.ndarray) -> np.ndarray:
    return np.diagonal(matrix[..., :-1], axis1=-2, axis2=-1)


def recall(matrix: np.ndarray) -> np.ndarray:
    """By class; 0 where a class has no posts."""
    return hits(matrix) / np.maximum(matrix.sum(axis=-1), 1)


def precision(matrix: np.ndarray) -> np.ndarray:
    """By class; 0 where it was never predicted."""
    return hits(matrix) / np.maximum(matrix[..., :-1].sum(axis=-2), 1)


def f1(matrix: np.ndarray) -> np.ndarray:
    """By class: 2 tp / (2 tp + fp + fn)."""
    return 2 * hits(matrix) / np.maximum(matrix.sum(axis=-1) + matrix[..., :-1].sum(axis=-2), 1)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    return hits(matrix).sum(axis=-1) / np.maximum(matrix.sum(axis=(-1, -2)), 1)


def macro_recall(matrix: np.ndarray) -> np.ndarray:
    """Over the classes that have posts: a slice may lack one."""
    present = matrix.sum(axis=-1) > 0
    return recall(matrix).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1)


def metric(name: str, labels: Sequence[str]) -> Metric:
    """The metric that data.METRICS calls `name`."""
    match name.split(" of "):
        case ["macro recall"]:
            return macro_recall
        case ["macro F1"]:
            return lambda matrix: f1(matrix).mean(axis=-1)
        case ["F1", label]:
            return lambda matrix: f1(matrix)[..., labels.index(label)]
    raise ValueError(f"no metric {name!r}")


def interval(of: Metric, matrix: np.ndarray, seed: int) -> tuple[float, float]:
    """The 95 % percentile interval over resampled posts. It does not cover the choice of training data."""
    cells = matrix.ravel()
    draws = np.random.default_rng(seed).multinomial(cells.sum(), cells / cells.sum(), size=DRAWS)
    low, high = np.percentile(of(draws.reshape(DRAWS, *matrix.shape)), [2.5, 97.5])
    return float(low), float(high)
