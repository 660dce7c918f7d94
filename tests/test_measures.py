"""Every metric against scikit-learn, on random and adversarial rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from stages import measures
from stages.statistics import bootstrap, once
from stages.tasks import classification as task

METRICS = measures.of(task)


def rows(n: int, k: int, seed: int = 0, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, k, n), generator.dirichlet([0.3] * k, n)


def certain(predicted: list[int], k: int, p: float = 1.0) -> np.ndarray:
    scores = np.full((len(predicted), k), (1 - p) / (k - 1))
    scores[np.arange(len(predicted)), predicted] = p
    return scores


def rounded(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of few distinct values: many ties."""
    target, scores = rows(n, k, 5)
    scores = np.round(scores * 4) + 1
    return target, scores / scores.sum(axis=1, keepdims=True)


CASES: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "two classes": rows(200, 2),
    "three classes": rows(200, 3),
    "77 classes": rows(600, 77),
    "77 classes, most absent": rows(20, 77),
    "a class absent from the truth": (rows(60, 2)[0] + 1, rows(60, 4)[1]),
    "a class never predicted": (rows(60, 3)[0], certain([0, 1] * 30, 3, 0.8)),
    "one class in the truth": (np.full(9, 1), rows(9, 3)[1]),
    "one class in the truth, of two": (np.full(9, 1), rows(9, 2)[1]),
    "one class predicted": (rows(40, 3)[0], certain([2] * 40, 3, 0.6)),
    "ties": rounded(150, 3),
    "ties, two classes": rounded(150, 2),
    "all scores equal": (rows(30, 2)[0], np.full((30, 2), 0.5)),
    "all right": (rows(50, 4)[0], certain(rows(50, 4)[0].tolist(), 4)),
    "all wrong": (rows(50, 4)[0], certain(((rows(50, 4)[0] + 1) % 4).tolist(), 4)),
    "one row": (np.array([2]), rows(1, 3)[1]),
    "one row, of two classes": (np.array([0]), rows(1, 2)[1]),
    "two rows": (np.array([0, 1]), rows(2, 2)[1]),
}


def expected(target: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """What scikit-learn makes of the rows; NaN where it, or the definition, has no value."""
    predicted, k = scores.argmax(axis=1), scores.shape[1]
    classes = [1] if k == 2 else range(k)
    mixed = [c for c in classes if 0 < (target == c).sum() < len(target)]

    def mean(area: Any) -> float:
        found = [area(target == c, scores[:, c]) for c in mixed]
        return float(np.mean(found)) if found else float("nan")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "accuracy": sk.accuracy_score(target, predicted),
            "macro_f1": sk.f1_score(target, predicted, average="macro", zero_division=0),
            "mcc": sk.matthews_corrcoef(target, predicted),
            "roc_auc": mean(sk.roc_auc_score),
            "pr_auc": mean(sk.average_precision_score),
            "log_loss": sk.log_loss(target, scores, labels=range(k)),
            "ece": calibration_error(target, scores),
        }


def calibration_error(target: np.ndarray, scores: np.ndarray) -> float:
    """Straight from the definition, bin by bin (Guo et al., 2017, equation 3)."""
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == target
    error = 0.0
    for m in range(1, 16):
        part = [i for i, p in enumerate(confidence) if np.ceil(p * 15) == m]
        if part:
            error += abs(right[part].sum() - confidence[part].sum()) / len(target)
    return error


def agree(target: np.ndarray, scores: np.ndarray) -> None:
    found = {name: float(value) for name, value in once(METRICS, target, scores).items()}
    assert found == pytest.approx(expected(target, scores), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("case", CASES)
def test_metrics_equal_scikit_learn(case: str) -> None:
    agree(*CASES[case])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 6).flatmap(
        lambda k: st.lists(
            st.tuples(st.integers(0, k - 1), st.lists(st.integers(0, 3), min_size=k, max_size=k)),
            min_size=1,
            max_size=30,
        )
    )
)
def test_metrics_equal_scikit_learn_on_any_rows(drawn: list[tuple[int, list[int]]]) -> None:
    """Few levels of scores, so that ties and absent classes abound."""
    raw = np.array([levels for _, levels in drawn], dtype=float) + 0.01
    agree(np.array([label for label, _ in drawn]), raw / raw.sum(axis=1, keepdims=True))


def test_macro_areas_are_the_multi_class_ones_of_scikit_learn() -> None:
    target, scores = CASES["three classes"]
    found = once(METRICS, target, scores)
    area = sk.roc_auc_score(target, scores, multi_class="ovr", average="macro")
    assert found["roc_auc"] == pytest.approx(area)


@pytest.mark.parametrize("case", ["two classes", "three classes", "ties", "77 classes"])
def test_weights_are_repeated_rows(case: str) -> None:
    """What the bootstrap rests on: a row of weight 3 counts as three rows, of 0 as none."""
    target, scores = CASES[case]
    weights = np.random.default_rng(1).integers(0, 4, (5, len(target))).astype(float)
    found = METRICS(target, scores, weights)
    for i, weight in enumerate(weights):
        picked = np.repeat(np.arange(len(target)), weight.astype(int))
        alone = once(METRICS, target[picked], scores[picked])
        for name, value in alone.items():
            assert found[name][i] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_no_rows_give_no_numbers() -> None:
    found = bootstrap(METRICS, np.empty(0, int), np.empty((0, 3)), 100, 0, measures.REASONS)
    for estimate in found.values():
        assert estimate["value"] is estimate["low"] is None and estimate["reason"]


def test_a_certain_and_wrong_row_costs_a_finite_loss() -> None:
    found = once(METRICS, np.array([0]), np.array([[0.0, 1.0]]))
    assert found["log_loss"] == pytest.approx(36.04, abs=0.01)


def test_each_class_equals_scikit_learn() -> None:
    target, scores = rows(200, 4)
    target %= 3  # class 3 is predicted, never true
    found = once(measures.each_class, target, scores)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        target, scores.argmax(axis=1), labels=range(4), zero_division=np.nan
    )
    assert found["precision"] == pytest.approx(precision)
    assert found["recall"] == pytest.approx(recall, nan_ok=True) and np.isnan(recall[3])
    assert found["F1"] == pytest.approx(f1)


def test_details_say_all_of_each_class() -> None:
    target, scores = rows(200, 3)
    labels = ["a", "b", "c"]
    found = task.details(
        measures,
        lambda metrics: bootstrap(metrics, target, scores, 200, 0),
        target,
        scores,
        labels,
        pd.DataFrame(),
    )
    (table,), (matrix,), (curve,) = found["tables"], found["matrices"], found["curves"]
    assert table["columns"] == ["label", "rows", "precision", "recall", "F1"]
    for i, (label, count, *estimates) in enumerate(table["rows"]):
        assert (label, count) == (labels[i], (target == i).sum())
        assert all(one["low"] < one["value"] < one["high"] for one in estimates)
    predicted = scores.argmax(axis=1)
    assert matrix["values"] == sk.confusion_matrix(target, predicted).tolist()
    assert sum(point["rows"] for point in curve["points"]) == 200


def test_reliability_bins_have_their_upper_edge() -> None:
    scores = np.array([[p, 1 - p] for p in (0.6, 0.6000001, 1.0, 0.5)])
    found = once(measures.reliability, np.array([0, 0, 1, 0]), scores)
    assert np.flatnonzero(found["rows"]).tolist() == [7, 8, 9, 14]
    assert found["accuracy"][[7, 8, 9, 14]].tolist() == [1, 1, 1, 0]
