"""Intervals of metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

CONFIDENCE = 0.95


def bootstrap(
    metrics: Callable[[np.ndarray, np.ndarray], dict[str, float]],
    target: np.ndarray,
    scores: np.ndarray,
    samples: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Each metric with its 95% interval by the percentile bootstrap over rows (Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).

    Args:
        metrics: of target [n] and scores [n, k].
        samples: bootstrap samples.

    Returns:
        By metric: value, low, high.
    """
    value = metrics(target, scores)
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in value}
    for _ in range(samples):
        rows = generator.integers(0, len(target), len(target))
        for name, number in metrics(target[rows], scores[rows]).items():
            drawn[name].append(number)
    tail = (1 - CONFIDENCE) / 2
    result = {}
    for name, numbers in drawn.items():
        low, high = np.quantile(numbers, [tail, 1 - tail])
        result[name] = {"value": value[name], "low": float(low), "high": float(high)}
    return result


def described(
    metrics: dict[str, Any] | dict[str, dict[str, Any]], rows: int, samples: int, seed: int
) -> dict[str, Any]:
    """What a reader must know of the numbers beside them."""
    return {
        "split": "test",
        "rows": rows,
        "seed": seed,
        "bootstrap": samples,
        "confidence": CONFIDENCE,
        **metrics,
    }
