"""Numbers as targets: every metric as SciPy and scikit-learn have it, in the user's units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from stages import measures
from stages.preparing.normalising import normalised
from stages.statistics import once
from stages.tasks import regression as task

DATA = task.Data(text="text", value="value")


def read(values: list[str]) -> tuple[list[str], dict[int, str]]:
    found, reasons = task.read({"text": ["a"] * len(values), "value": values}, DATA, normalised)
    return found["value"], reasons


def expected(target: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    return {
        "r2": sk.r2_score(target, predicted),
        "pearson": stats.pearsonr(target, predicted).statistic,
        "spearman": stats.spearmanr(target, predicted).statistic,
        "mse": sk.mean_squared_error(target, predicted),
        "mae": sk.mean_absolute_error(target, predicted),
    }


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from([3, 50]), st.sampled_from([1e-3, 1.0, 1e5]))
def test_metrics_equal_scipy_and_scikit_learn(seed: int, rows: int, scale: float) -> None:
    """Also in a resample: rows that occur several times or never, with many ties."""
    draw = np.random.default_rng(seed)
    target = draw.integers(0, 5, rows) * scale + 7
    predicted = target + draw.integers(-2, 3, rows) * scale
    weights = np.stack([np.ones(rows), np.bincount(draw.integers(0, rows, rows), minlength=rows)])
    found = measures.of(task)(target, predicted[:, None], weights)
    for number, of in enumerate(weights.astype(int)):
        true, given = np.repeat(target, of), np.repeat(predicted, of)
        if len(set(true)) > 1 and len(set(given)) > 1:
            assert {name: value[number] for name, value in found.items()} == pytest.approx(
                expected(true, given), abs=1e-9, rel=1e-9
            )


def test_a_constant_has_no_correlation() -> None:
    found = once(measures.of(task), np.array([1.0, 2.0, 4.0]), np.full((3, 1), 0.1))
    assert np.isnan(found["pearson"]) and np.isnan(found["spearman"]) and found["r2"] < 0
    assert np.isnan(once(measures.of(task), np.ones(3), np.ones((3, 1)))["r2"])


def test_numbers_are_read_and_others_named() -> None:
    values, reasons = read(
        ["3", " 2.50 ", "1e3", "-0.5", "", "nan", "inf", "1_000", "three", "1,5"]
    )
    assert values[:4] == ["3.0", "2.5", "1000.0", "-0.5"]
    assert reasons == {
        4: "no value",
        **{
            i: f"not a finite number: {v!r}"
            for i, v in enumerate(["nan", "inf", "1_000", "three", "1,5"], 5)
        },
    }


def test_training_on_one_value_alone_is_refused() -> None:
    assert task.problems(pd.DataFrame({"value": ["2.0", "2.0"]}), []) == [
        "all training rows have the value 2.0; add rows of other ones"
    ]


def test_the_model_gives_the_users_units() -> None:
    """Folded into the last layer or not, a prediction is the same."""
    learnt = task.learn(np.array([90.0, 110.0]), [], task.Loss())
    assert learnt == {"mean": [100.0], "deviation": [10.0]}
    model: Any = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    before = task.scores(model(x).detach().numpy(), None, [], learnt)
    rest = task.fold(model, learnt)
    assert rest == {}
    after = task.scores(model(x).detach().numpy(), None, [], rest)
    np.testing.assert_allclose(before, after, rtol=1e-5)
    bare: Any = torch.nn.Linear(4, 1, bias=False)
    assert task.fold(bare, learnt) == learnt, "no bias could hold the mean"


def test_the_loss_is_that_of_standardised_targets() -> None:
    learnt = {"mean": torch.tensor([5.0]), "deviation": torch.tensor([2.0])}
    logits, target = torch.tensor([[0.5], [0.0]]), torch.tensor([7.0, 3.0])
    total, count = task.loss(logits, {"target": target}, task.Loss(), learnt)
    assert float(total / count) == pytest.approx(((0.5 - 1) ** 2 + 1) / 2)
