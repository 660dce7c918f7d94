"""Intervals that hold what they promise, and the paired comparison."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stages import measures
from stages.statistics import bootstrap, mcnemar, paired
from stages.tasks import classification as task


def model(right: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Scores of two classes that predict the target where `right`."""
    predicted = np.where(right, target, 1 - target)
    return np.stack([0.9 - 0.8 * predicted, 0.1 + 0.8 * predicted], axis=1)


def test_interval_of_accuracy_is_close_to_the_normal_one() -> None:
    target = np.zeros(400, dtype=int)
    scores = model(np.arange(400) >= 100, target)
    found = bootstrap(task.metrics, target, scores, samples=2000, seed=0)["accuracy"]
    error = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert found["value"] == 0.75
    assert found["low"] == pytest.approx(0.75 - error, abs=0.005)
    assert found["high"] == pytest.approx(0.75 + error, abs=0.005)
    assert bootstrap(task.metrics, target, scores, samples=2000, seed=0)["accuracy"] == found
    assert bootstrap(task.metrics, target, scores, samples=2000, seed=1)["accuracy"] != found


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """200 samples of 150 rows of a model whose accuracy and area are known: of 95% intervals,
    fewer than 88% would be a sign of a mistake, as would be all."""
    generator, held = np.random.default_rng(0), {"accuracy": 0, "roc_auc": 0}
    area = stats.norm.cdf(1.5 / np.sqrt(2))
    right = stats.norm.cdf(0.75)
    for trial in range(200):
        target = generator.integers(0, 2, 150)
        score = stats.norm.cdf(generator.normal(1.5 * target - 0.75))
        found = bootstrap(
            measures.of(task), target, np.stack([1 - score, score], axis=1), 200, trial
        )
        for name, truth in (("accuracy", right), ("roc_auc", area)):
            held[name] += found[name]["low"] <= truth <= found[name]["high"]
    assert all(0.88 < count / 200 < 1 for count in held.values()), held


def test_resamples_without_a_value_are_left_out_and_counted() -> None:
    """With one positive of four rows, (3/4)^4 = 32% of the resamples have none."""
    target, scores = np.array([1, 0, 0, 0]), np.array([[0.4, 0.6], [0.3, 0.7], [0.8, 0.2], [1, 0]])
    found = bootstrap(measures.of(task), target, scores, 1000, 0)
    assert found["roc_auc"]["value"] == pytest.approx(2 / 3)
    assert 600 < found["roc_auc"]["samples"] < 750
    assert "samples" not in found["accuracy"]


def test_a_metric_without_a_value_says_why() -> None:
    target, scores = np.array([1, 1]), np.array([[0.4, 0.6], [0.3, 0.7]])
    found = bootstrap(measures.of(task), target, scores, 100, 0, measures.REASONS)["roc_auc"]
    reason = "not defined where all rows have one label"
    assert found == {"value": None, "low": None, "high": None, "reason": reason}


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    p = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second)["p_value"] == pytest.approx(p, rel=1e-9)


def test_mcnemar_of_many_rows() -> None:
    p = stats.binomtest(51_000, 101_500).pvalue
    assert mcnemar(51_000, 50_500)["p_value"] == pytest.approx(p, rel=1e-6)


def test_paired_difference_and_discordant_rows() -> None:
    """The interval is that of the mean of +1, 0, -1 a row, resampled with the same rows."""
    generator = np.random.default_rng(3)
    target = generator.integers(0, 2, 300)
    first, second = generator.random(300) < 0.85, generator.random(300) < 0.75
    found = paired(task.metrics, target, model(first, target), model(second, target), 2000, 0)
    change = first.astype(float) - second
    drawn = stats.bootstrap(
        (change,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    difference = found["difference"]["accuracy"]
    assert difference["value"] == pytest.approx(change.mean())
    assert (difference["low"], difference["high"]) == pytest.approx(
        (drawn.low, drawn.high), abs=0.01
    )
    assert found["mcnemar"]["first_only"] == (first & ~second).sum()
    assert found["mcnemar"]["second_only"] == (second & ~first).sum()


def test_pairing_finds_what_separate_intervals_miss() -> None:
    """Models that differ on few rows only: their own intervals overlap, the difference is sure."""
    target = np.zeros(500, dtype=int)
    first, second = np.arange(500) < 420, np.arange(500) < 400
    better, worse = model(first, target), model(second, target)
    one, other = (bootstrap(task.metrics, target, m, 500, 0) for m in (better, worse))
    assert one["accuracy"]["low"] < other["accuracy"]["high"]
    found = paired(task.metrics, target, better, worse, 500, 0)
    assert found["difference"]["accuracy"]["low"] > 0
    assert found["mcnemar"] == {
        "first_only": 20,
        "second_only": 0,
        "p_value": pytest.approx(2**-19),
    }


def test_a_model_does_not_differ_from_itself() -> None:
    target = np.array([0, 1, 1, 0])
    scores = model(np.array([True, False, True, True]), target)
    found = paired(measures.of(task), target, scores, scores, 200, 0)
    for name, difference in found["difference"].items():
        assert (difference["value"], difference["low"], difference["high"]) == (0, 0, 0), name
    assert found["mcnemar"]["p_value"] == 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_rows_that_are_all_alike_have_no_interval(value: float) -> None:
    target = np.array([0, 1, 1, 0])
    scores = model(np.full(4, bool(value)), target)
    found = bootstrap(measures.of(task), target, scores, 200, 0)["accuracy"]
    reason = "all rows alike: no interval"
    assert found == {"value": value, "low": None, "high": None, "reason": reason}
    constant = np.tile([0.9, 0.1], (4, 1))  # whose correlation is 0 on any rows
    assert bootstrap(measures.of(task), target, constant, 200, 0)["mcc"]["low"] == 0
