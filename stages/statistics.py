"""Intervals of metrics, and two models compared on the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

CONFIDENCE = 0.95
CELLS = 600_000  # weights held at a time: fast, and a few MB
ENDS = (0.0, 1.0, 100.0)  # of the ranges of metrics
CENTRED = ("mcc", "pearson", "r2", "spearman")  # 0 is no end of theirs
ALIKE = "all rows alike: no interval"

Metrics = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""Metrics of many resamples at once: target [n], scores [n, k] and weights [b, n], which say how
often each row occurs in each of b resamples; by name an array [b, ...], NaN where a metric is
undefined. `stages.measures.of(task)` gives that of a task."""

Right = Callable[[np.ndarray, np.ndarray], np.ndarray | None]

Estimate = dict[str, Any]
"""`value`, `low`, `high`; where some resamples left the metric undefined, `samples`: how many
did not; where it is undefined on the rows themselves, all three None and `reason`; where rows are
all right or all wrong, which no resample can change, no `low` and `high`, and `reason`."""


def once(metrics: Metrics, target: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of the rows as they are, each array without its first dimension."""
    with np.errstate(invalid="ignore"):  # without rows, 0 / 0
        found = metrics(target, scores, np.ones((1, len(target))))
    return {name: values[0] for name, values in found.items()}


def resamples(rows: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Bootstrap samples as weights [b, rows], in parts of bounded size."""
    generator = np.random.default_rng(seed)
    size = max(1, CELLS // max(rows, 1))
    for start in range(0, samples, size):
        weights = np.empty((min(size, samples - start), rows))
        for row in weights:
            row[:] = np.bincount(generator.integers(0, max(rows, 1), rows), minlength=rows)
        yield weights


def bootstrap(
    metrics: Metrics,
    target: np.ndarray,
    scores: np.ndarray,
    samples: int,
    seed: int,
    reasons: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Each metric with its 95% interval by the percentile bootstrap over rows (Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).

    Args:
        target, scores: [n], [n, k].
        samples: bootstrap samples.
        reasons: by metric, what to say where it is undefined.

    Returns:
        By metric an `Estimate`; a list of them for a metric of many values, [b, k].
    """
    values = once(metrics, target, scores)
    drawn = _drawn(lambda weights: metrics(target, scores, weights), len(target), samples, seed)
    return {
        name: _unless_alike(
            name,
            _estimates(value, drawn[name], (reasons or {}).get(name, "undefined on these rows")),
        )
        for name, value in values.items()
    }


def _unless_alike(name: str, estimate: Any) -> Any:
    """Without the interval of no width that resamples give at an end of the metric's range."""
    if isinstance(estimate, list):
        return [_unless_alike(name, one) for one in estimate]
    value, ends = estimate["value"], ENDS[1:] if name in CENTRED else ENDS
    if value in ends and estimate["low"] == estimate["high"] == value:
        return estimate | {"low": None, "high": None, "reason": ALIKE}
    return estimate


def highest_is_target(target: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Rows [n] whose highest score is that of their class."""
    return scores.argmax(axis=1) == target


def paired(
    metrics: Metrics,
    target: np.ndarray,
    first_scores: np.ndarray,
    second_scores: np.ndarray,
    samples: int,
    seed: int,
    right: Right = highest_is_target,
) -> dict[str, Any]:
    """Two models on the same rows: first minus second.

    Args:
        metrics: all single-valued.
        target, first_scores, second_scores: as `metrics` takes them.
        right: which rows are predicted rightly, `stages.tasks.base.Task.right`.

    Returns:
        `difference`: by metric an `Estimate` of the difference, by the paired percentile
        bootstrap: both models are measured on the same resampled rows.
        `mcnemar`: rows that only the first or only the second predicts rightly (`first_only`,
        `second_only`) and the two-sided exact `p_value`; None where rows are not right or wrong.
    """

    def differences(weights: np.ndarray) -> dict[str, np.ndarray]:
        first = metrics(target, first_scores, weights)
        second = metrics(target, second_scores, weights)
        return {name: first[name] - second[name] for name in first}

    value = {name: one[0] for name, one in differences(np.ones((1, len(target)))).items()}
    drawn = _drawn(differences, len(target), samples, seed)
    one, other = right(target, first_scores), right(target, second_scores)
    test = None
    if one is not None and other is not None:
        test = mcnemar(int((one & ~other).sum()), int((other & ~one).sum()))
    return {
        "difference": {
            name: _estimates(value[name], drawn[name], "undefined on these rows") for name in value
        },
        "mcnemar": test,
    }


def mcnemar(first_only: int, second_only: int) -> dict[str, Any]:
    """McNemar's exact test: given that a row is right by one model only, either is as likely
    (McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", 1947). The p-value is twice the smaller tail of a fair binomial, at most 1."""
    count, fewer = first_only + second_only, min(first_only, second_only)
    logs = [
        math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1)
        for i in range(fewer + 1)
    ]
    tail = math.fsum(math.exp(log - count * math.log(2)) for log in logs)
    return {
        "first_only": first_only,
        "second_only": second_only,
        "p_value": 1.0 if first_only == second_only else min(1.0, 2 * tail),
    }


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


def _drawn(
    metrics: Callable[[np.ndarray], dict[str, np.ndarray]], rows: int, samples: int, seed: int
) -> dict[str, np.ndarray]:
    with np.errstate(invalid="ignore"):
        parts = [metrics(weights) for weights in resamples(rows, samples, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _estimates(value: np.ndarray, drawn: np.ndarray, reason: str) -> Any:
    """An estimate for each value: `value` [...], `drawn` [samples, ...]."""
    if value.ndim:
        columns = np.moveaxis(drawn, 0, -1)
        return [_estimates(one, column, reason) for one, column in zip(value, columns, strict=True)]
    if not np.isfinite(value):
        return {"value": None, "low": None, "high": None, "reason": reason}
    usable = drawn[np.isfinite(drawn)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(usable, [tail, 1 - tail]).tolist() if len(usable) else (None, None)
    estimate = {"value": float(value), "low": low, "high": high}
    return estimate if len(usable) == len(drawn) else estimate | {"samples": len(usable)}
