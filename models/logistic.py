"""Multinomial logistic regression and its calibration, in numpy: all of training that is arithmetic.

Everything is deterministic. The objective is convex, so what is found does not depend on where the search starts, and
on the platform only in the last digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Head:
    """A linear classifier: logits = x @ weight.T + bias, with weight [classes, width] and bias [classes]."""

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, x: np.ndarray) -> np.ndarray:
        """[n, width] -> [n, classes]"""
        return x @ self.weight.T + self.bias


def fit(x: np.ndarray, y: np.ndarray, classes: int, l2: float) -> Head:
    """Fits a head to x [n, width] and y [n] in 0..classes.

    Minimises the mean cross-entropy, in which every class weighs the same however many posts it has, plus l2 / 2 times
    the squared weights. Features are standardised for the fit, so that l2 weighs them alike; the head that comes back
    has that folded in and reads x as it is.
    """
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1
    z = (x - mean) / scale
    counts = np.bincount(y, minlength=classes)
    share = 1 / (classes * counts[y])  # sums to 1
    target = np.eye(classes)[y]
    width = x.shape[1]

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = parameters[: classes * width].reshape(classes, width), parameters[classes * width :]
        log_p = log_softmax(z @ weight.T + bias)
        loss = -(share * log_p[np.arange(len(y)), y]).sum() + l2 / 2 * (weight**2).sum()
        slope = share[:, None] * (np.exp(log_p) - target)
        return loss, np.concatenate([(slope.T @ z + l2 * weight).ravel(), slope.sum(axis=0)])

    found = minimise(objective, np.zeros(classes * (width + 1)))
    weight = found[: classes * width].reshape(classes, width) / scale
    return Head(weight, found[classes * width :] - weight @ mean)


def minimise(
    objective: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, tolerance: float = 1e-6, memory: int = 20
) -> np.ndarray:
    """Minimises a smooth convex function by L-BFGS with backtracking (Nocedal and Wright, algorithms 7.4 and 3.1).

    `objective` returns value and gradient. Ends where no entry of the gradient exceeds `tolerance`.
    """
    x = start
    value, gradient = objective(x)
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(2000):
        if np.abs(gradient).max() <= tolerance:
            return x
        direction = -two_loop(gradient, steps)
        slope = gradient @ direction
        length = 1.0 if steps else 1 / max(1.0, np.linalg.norm(gradient))
        while True:
            next_x = x + length * direction
            next_value, next_gradient = objective(next_x)
            if next_value <= value + 1e-4 * length * slope:
                break
            length /= 2
            if length < 1e-12:
                return x  # the value is exact to the last digit
        step, change = next_x - x, next_gradient - gradient
        if step @ change > 1e-12 * (change @ change):
            steps = [*steps, (step, change)][-memory:]
        x, value, gradient = next_x, next_value, next_gradient
    raise RuntimeError("the fit did not converge; raise l2")


def two_loop(gradient: np.ndarray, steps: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The gradient, times an estimate of the inverse Hessian from the last steps."""
    result = gradient.copy()
    factors = []
    for step, change in reversed(steps):
        factor = (step @ result) / (step @ change)
        result -= factor * change
        factors.append(factor)
    if steps:
        step, change = steps[-1]
        result *= (step @ change) / (change @ change)
    for (step, change), factor in zip(steps, reversed(factors)):
        result += (factor - (change @ result) / (step @ change)) * step
    return result


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    return np.exp(log_softmax(logits))


def fit_temperature(logits: np.ndarray, y: np.ndarray) -> float:
    """The positive number by which dividing logits [n, classes] makes y [n] most likely; searched in [1/20, 20]."""
    rows = np.arange(len(y))

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature))[rows, y].mean()

    low, high = -np.log(20), np.log(20)
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-6:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def cross_fitted(logits: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Calibrated probabilities [n, classes] in which no post had a say in its own temperature: each half of the posts
    is calibrated on the other."""
    half = np.random.default_rng(seed).permutation(len(y)) < len(y) // 2
    probabilities = np.empty_like(logits)
    for here, there in ((half, ~half), (~half, half)):
        probabilities[here] = softmax(logits[here] / fit_temperature(logits[there], y[there]))
    return probabilities


def macro_recall(y: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """The mean over the classes of the share of a class's posts that were found."""
    return float(np.mean([(predicted[y == label] == label).mean() for label in range(classes)]))


def bootstrap_interval(y: np.ndarray, predicted: np.ndarray, classes: int, seed: int, draws: int = 10_000) -> tuple[float, float]:
    """The 95 % percentile interval of macro recall over resampled posts."""
    # Only how many posts of each class are right and wrong matters: resampling posts is drawing these counts.
    cells = np.array([((y == label) & ((predicted == label) == right)).sum() for label in range(classes) for right in (1, 0)])
    counts = np.random.default_rng(seed).multinomial(len(y), cells / len(y), size=draws).reshape(draws, classes, 2)
    recall = counts[:, :, 0] / np.maximum(counts.sum(axis=2), 1)
    low, high = np.percentile(recall.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
