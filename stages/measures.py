"""Formulas of metrics, on many weighted resamples at once.

A task composes its metrics of these in `Task.evaluation`, which gets this module as an argument:
so a changed formula reruns what measures (evaluate, baseline), and trains nothing anew.

Shapes, unless said otherwise: target [n] holds class numbers, scores [n, k] probabilities, weights
[b, n] how often each row occurs in each of b resamples. An undefined value is NaN.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from stages.statistics import Metrics
    from stages.tasks.base import Intervals

BINS = 15  # of the calibration error, as in Guo et al.
NO_SPAN = "(none)"
WORST = 15  # mistaken spans in the report
CLIP = float(np.finfo(np.float64).eps)  # least probability in the log loss, as in scikit-learn
REASONS = dict.fromkeys(("roc_auc", "pr_auc"), "not defined where all rows have one label")
REASONS |= dict.fromkeys(
    ("r2", "pearson", "spearman"), "not defined where all values, true or predicted, are one"
)


def of(task: Any) -> Metrics:
    """All metrics of a task, as `stages.statistics` takes them."""
    return partial(task.evaluation, sys.modules[__name__])


def mcc(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Matthews' correlation for k classes (Gorodkin, "Comparing two K-category assignments by a
    K-category correlation coefficient", 2004); 0 where all rows have, or are given, one class.

    Args:
        right, true, predicted: rows of each class that are predicted rightly, that have it, and
            that are given it, [b, k].
    """
    rows = true.sum(axis=1)
    covariance = right.sum(axis=1) * rows - (true * predicted).sum(axis=1)
    spread = (rows**2 - (true**2).sum(axis=1)) * (rows**2 - (predicted**2).sum(axis=1))
    flat = spread == 0
    return np.where(flat & (rows > 0), 0.0, covariance / np.sqrt(np.where(flat, np.nan, spread)))


def log_loss(target: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean negative logarithm of the true class's probability, in nats. Probabilities below
    `CLIP` (2.2e-16) count as that, so a row costs 36 at most."""
    losses = -np.log(np.clip(scores[np.arange(len(target)), target], CLIP, 1 - CLIP))
    return (weights * losses).sum(axis=1) / weights.sum(axis=1)


def areas(
    target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve (ties count one half) and average precision (the sum of precision
    times the step of recall, over distinct scores), [b] each.

    Of the second class where there are two. Else the mean over classes, each against the rest;
    in each resample over the classes that occur in it and do not fill it.
    """
    classes = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    wide = np.ascontiguousarray(weights.T)  # sums over rows then run along memory
    totals, count = np.zeros((2, len(weights))), np.zeros(len(weights))
    for number in classes:
        positive = target == number
        if positive.any():
            both = _areas(positive, scores[:, number], wide)
            defined = np.isfinite(both[0])
            totals += np.where(defined, both, 0.0)
            count += defined
    roc, precision = totals / np.where(count, count, np.nan)
    return roc, precision


def _areas(positive: np.ndarray, score: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """Both areas of one class, [2, b]. Only the scores that positive rows have are steps, so the
    weights are summed between these: in one pass over the rows, sorted once for all resamples.

    Args:
        positive, score: [n].
        wide: weights [n, b].
    """
    order = np.argsort(-score, kind="stable")
    falling = -score[order]
    steps = np.unique(-score[positive])
    starts = np.searchsorted(falling, steps, side="left")
    ends = np.searchsorted(falling, steps, side="right")
    bounds = np.unique(np.concatenate([[0], starts, ends[ends < len(score)]]))
    parts = np.add.reduceat(wide[order], bounds, axis=0)
    at = np.searchsorted(bounds, starts)
    equal, above = parts[at], parts.cumsum(axis=0)[at]  # rows at each step; rows down to it

    members = order[positive[order]]
    first = np.searchsorted(-score[members], steps, side="left")
    hits = np.add.reduceat(wide[members], first, axis=0)
    hits_above = hits.cumsum(axis=0)

    positives, rows = hits_above[-1], wide.sum(axis=0)
    below = rows - positives - (above - hits_above)  # negative rows of a lower score
    pairs = (hits * (below + 0.5 * (equal - hits))).sum(axis=0)
    mixed = (positives > 0) & (positives < rows)
    roc = pairs / np.where(mixed, positives * (rows - positives), np.nan)
    precision = hits_above / np.where(above > 0, above, 1.0)
    average = (hits * precision).sum(axis=0) / np.where(mixed, positives, np.nan)
    return np.stack([roc, average])


def reliability(
    target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Rows, mean confidence (the highest probability) and accuracy in `BINS` bins of equal width
    by confidence, (m - 1) / 15 < confidence <= m / 15; [b, 15] each, NaN in an empty bin (Guo et
    al., "On Calibration of Modern Neural Networks", 2017)."""
    confidence = scores.max(axis=1)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    rows = tally(bins, weights, BINS)
    filled = np.where(rows > 0, rows, np.nan)
    right = (scores.argmax(axis=1) == target).astype(float)
    return {
        "rows": rows,
        "confidence": tally(bins, weights * confidence, BINS) / filled,
        "accuracy": tally(bins, weights * right, BINS) / filled,
    }


def calibration_error(target: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error: the mean over rows of their bin's distance between accuracy
    and confidence (see `reliability`). Noise within bins adds to it, so with few rows it is
    larger than the model's own, and its bootstrap samples are larger still."""
    bins = reliability(target, scores, weights)
    apart = np.nan_to_num(np.abs(bins["accuracy"] - bins["confidence"]))
    return (bins["rows"] * apart).sum(axis=1) / bins["rows"].sum(axis=1)


def curve(intervals: Intervals) -> dict[str, Any]:
    """The reliability curve for details.json: a point for each bin that has rows."""
    bins = intervals(reliability)
    points = [
        {"x": confidence["value"], "y": accuracy, "rows": int(rows["value"])}
        for rows, confidence, accuracy in zip(
            bins["rows"], bins["confidence"], bins["accuracy"], strict=True
        )
        if rows["value"]
    ]
    note = (
        "Rows in 15 bins by the highest probability, the confidence. A trustworthy model is right "
        "as often as it is confident (the diagonal); below the diagonal it is overconfident."
    )
    return {
        "title": "Reliability",
        "x": "confidence",
        "y": "accuracy",
        "points": points,
        "note": note,
    }


def each_class(
    target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class, [b, k] each; NaN where their denominator is 0."""
    k, predicted = scores.shape[1], scores.argmax(axis=1)
    right = tally(target, weights * (predicted == target), k)
    true, given = tally(target, weights, k), tally(predicted, weights, k)
    parts = {"precision": (right, given), "recall": (right, true), "F1": (2 * right, true + given)}
    return {name: over / np.where(of > 0, of, np.nan) for name, (over, of) in parts.items()}


def by_label(intervals: Intervals, target: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """The table of `each_class`; recall is the accuracy on the rows of a label."""
    found = intervals(each_class)
    rows = np.bincount(target, minlength=len(labels)).tolist()
    return {
        "title": "By label",
        "columns": ["label", "rows", *found],
        "rows": [list(row) for row in zip(labels, rows, *found.values(), strict=True)],
        "note": "The recall of a label is the accuracy on the rows that have it.",
    }


def confusion(target: np.ndarray, scores: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """The matrix of counts: true label by predicted label."""
    k = len(labels)
    counts = np.bincount(target * k + scores.argmax(axis=1), minlength=k * k)
    return {
        "title": "Confusion matrix",
        "rows": "true label",
        "columns": "predicted label",
        "labels": labels,
        "values": counts.reshape(k, k).tolist(),
    }


def ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of values [n], the rank of each in each resample, equal ones sharing their mean: [b, n]."""
    distinct, group = np.unique(values, return_inverse=True)
    rows = tally(group, weights, len(distinct))
    below = rows.cumsum(axis=1) - rows
    return (below + (rows + 1) / 2)[:, group]


def spread(target: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """A table of the quantiles of true and predicted values, and of the error's size."""
    columns = {"true": target, "predicted": predicted, "error": np.abs(predicted - target)}
    points = {"least": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "greatest": 1.0}
    return {
        "title": "Values",
        "columns": ["quantile", *columns],
        "rows": [
            [name, *(float(np.quantile(of, point)) for of in columns.values())]
            for name, point in points.items()
        ],
        "note": "Each column by itself; the error is the distance of predicted from true.",
    }


def by_prediction(intervals: Intervals, predicted: np.ndarray, parts: int) -> dict[str, Any]:
    """The curve of true against predicted value, in parts of equal size by the latter."""
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, parts + 1)[1:-1]))
    part = np.searchsorted(edges, predicted, side="left")
    size = len(edges) + 1

    def means(target: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        rows = tally(part, weights, size)
        filled = np.where(rows > 0, rows, np.nan)
        return {
            "rows": rows,
            "predicted": tally(part, weights * scores[:, 0], size) / filled,
            "true": tally(part, weights * target, size) / filled,
        }

    found = intervals(means)
    columns = (found["rows"], found["predicted"], found["true"])
    points = [
        {"x": x["value"], "y": y, "rows": int(rows["value"])}
        for rows, x, y in zip(*columns, strict=True)
        if rows["value"]
    ]
    note = (
        "Rows in parts of equal size by the predicted value. On the diagonal the mean of a part is "
        "right; a flatter line than the diagonal says that predictions are too extreme."
    )
    return {
        "title": "True by predicted value",
        "x": "predicted",
        "y": "true",
        "points": points,
        "note": note,
    }


def of_binaries(
    target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Of labels that a row may have any number of: the mean of their average precisions, each in
    the resamples where some rows have it and some not, and the mean log loss of a label, in nats.

    Args:
        target: 0 or 1, [n, k].
        scores: of which the first k columns are probabilities.
    """
    k = target.shape[1]
    wide = np.ascontiguousarray(weights.T)
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for number in range(k):
        positive = target[:, number] > 0
        if positive.any():
            precision = _areas(positive, scores[:, number], wide)[1]
            defined = np.isfinite(precision)
            total += np.where(defined, precision, 0.0)
            count += defined
    chance = np.where(target > 0, scores[:, :k], 1 - scores[:, :k])
    losses = -np.log(np.clip(chance, CLIP, 1 - CLIP)).mean(axis=1)
    return {
        "pr_auc": total / np.where(count, count, np.nan),
        "log_loss": weights @ losses / weights.sum(axis=1),
    }


def each_binary(
    target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each label, [b, k] each; NaN where their denominator is 0.

    Args:
        target: 0 or 1, [n, k].
        scores: of which the last k columns are 1 where a label is given.
    """
    given = scores[:, -target.shape[1] :]
    right, true, all_given = (weights @ counts for counts in (given * target, target, given))
    parts = {
        "precision": (right, all_given),
        "recall": (right, true),
        "F1": (2 * right, true + all_given),
    }
    return {name: over / np.where(of > 0, of, np.nan) for name, (over, of) in parts.items()}


def by_binary(intervals: Intervals, target: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """The table of `each_binary`."""
    found = intervals(each_binary)
    rows = target.sum(axis=0).tolist()
    return {
        "title": "By label",
        "columns": ["label", "rows", *found],
        "rows": [list(row) for row in zip(labels, rows, *found.values(), strict=True)],
    }


def together(target: np.ndarray, scores: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """The matrix of counts: label missed by label wrongly given in the same row; on the diagonal
    the rows where a label is rightly given."""
    given = scores[:, -target.shape[1] :] > 0
    had = target > 0
    counts = (had & ~given).astype(int).T @ (given & ~had).astype(int)
    counts[np.diag_indices(len(labels))] = (had & given).sum(axis=0)
    return {
        "title": "Missed labels by what was given instead",
        "rows": "missed label",
        "columns": "wrongly given label",
        "labels": labels,
        "values": counts.tolist(),
    }


def each_kind(target: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each kind of spans, [b, k] each; NaN where their denominator
    is 0.

    Args:
        target: spans of each kind that a row has, [n, k].
        scores: those that are right, then those that are given, [n, 2 k or more].
    """
    k = target.shape[1]
    right, given, true = (weights @ of for of in (scores[:, :k], scores[:, k : 2 * k], target))
    parts = {"precision": (right, given), "recall": (right, true), "F1": (2 * right, true + given)}
    return {name: over / np.where(of > 0, of, np.nan) for name, (over, of) in parts.items()}


def by_kind(intervals: Intervals, target: np.ndarray, names: list[str]) -> dict[str, Any]:
    """The table of `each_kind`."""
    found = intervals(each_kind)
    counts = target.sum(axis=0).tolist()
    return {
        "title": "By label",
        "columns": ["label", "true", *found],
        "rows": [list(row) for row in zip(names, counts, *found.values(), strict=True)],
    }


def spans_confused(pairs: list[tuple[list[Any], list[Any]]], names: list[str]) -> dict[str, Any]:
    """The matrix of spans (label, begin, end): true label by the label given to the same words;
    `NO_SPAN` where no span has just these.

    Args:
        pairs: of each row the true spans and those given.
    """
    none = len(names)
    index: dict[str | None, int] = {None: none, **{name: i for i, name in enumerate(names)}}
    counts = np.zeros((none + 1, none + 1), dtype=int)
    for pair in pairs:
        for _, true, given in _placed(*pair):
            counts[index[true], index[given]] += 1
    return {
        "title": "Confusion of spans",
        "rows": "true label",
        "columns": "given label",
        "labels": [*names, NO_SPAN],
        "values": counts.tolist(),
    }


def spans_mistaken(
    pairs: list[tuple[list[Any], list[Any]]], words: list[list[str]]
) -> dict[str, Any]:
    """The table of the spans that are wrong, by their words, the most frequent first.

    Args:
        pairs: of each row the true spans and those given, (label, first word, word after).
        words: of each row.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    for pair, of in zip(pairs, words, strict=True):
        for (start, end), true, given in _placed(*pair):
            if true != given:
                counts[" ".join(of[start:end]), true or "", given or ""] += 1
    worst = sorted(counts, key=lambda one: (-counts[one], one))[:WORST]
    return {
        "title": "Worst spans",
        "columns": ["words", "true label", "given label", "times"],
        "rows": [
            [text, label or NO_SPAN, found or NO_SPAN, counts[text, label, found]]
            for text, label, found in worst
        ],
        "note": f"The most frequent mistakes, of {len(counts):,} different ones; {NO_SPAN}: no "
        "span has just these words.",
    }


def _placed(true: list[Any], given: list[Any]) -> Iterator[tuple[Any, str | None, str | None]]:
    """Each place that a row's spans have, with its true label and the given one."""
    labels, found = ({(start, end): label for label, start, end in of} for of in (true, given))
    for place in labels | found:
        yield place, labels.get(place), found.get(place)


def tally(groups: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Sums of weights [b, n] by group (0 to size - 1) [n], as [b, size]."""
    cells = groups + size * np.arange(len(weights))[:, None]
    return np.bincount(cells.ravel(), weights.ravel(), minlength=size * len(weights)).reshape(
        len(weights), size
    )
