"""TweetEval's metric of each task, and how well an embedding keeps the neighbours of another."""

from __future__ import annotations

import numpy as np

# Macro-averaged recall for sentiment, F1 of the ironic class for irony, macro F1 for the rest: Barbieri et al., TweetEval (Findings of EMNLP 2020).
METRIC = {"sentiment": "macro recall", "emotion": "macro F1", "irony": "F1 of irony", "offensive": "macro F1", "hate": "macro F1"}


def score(task: str, gold: np.ndarray, predicted: np.ndarray) -> float:
    """The task's metric in 0..1."""
    classes = range(int(gold.max()) + 1)
    hits = np.array([np.sum((gold == k) & (predicted == k)) for k in classes], dtype=float)
    recall = hits / np.array([max(np.sum(gold == k), 1) for k in classes])
    precision = hits / np.array([max(np.sum(predicted == k), 1) for k in classes])
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return {"macro recall": recall.mean(), "macro F1": f1.mean(), "F1 of irony": f1[-1]}[METRIC[task]]


def neighbours(vectors: np.ndarray, count: int = 10) -> np.ndarray:
    """The `count` nearest other rows by dot product, [rows, count]. `vectors` have length 1."""
    closeness = vectors @ vectors.T
    np.fill_diagonal(closeness, -2)
    return np.argpartition(-closeness, count, axis=1)[:, :count]


def kept_neighbours(vectors: np.ndarray, original: np.ndarray, count: int = 10) -> float:
    """The share of the original's nearest rows that are nearest here, too (recall@count)."""
    ours, theirs = neighbours(vectors, count), neighbours(original, count)
    return float((ours[:, :, None] == theirs[:, None, :]).any(2).mean())
