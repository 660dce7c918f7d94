"""Regression of a number on a text or a pair: linear head and squared error, on targets of mean 0
and variance 1; everything that leaves the task is in the user's units."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from stages.common import texts
from stages.params import Section

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import torch
    from transformers import PreTrainedModel

    from stages.tasks.base import Intervals, Learnt, Normalised, Predict, Raw

TEXTS = texts.TEXTS
TARGET = "value"
OTHERS = ()
NESTED = ()
WINDOWED = False
GENERATIVE = False
MAIN_METRIC = SELECTION_METRIC = "r2"
LOWER_IS_BETTER = ("mse", "mae")
HUB_TASK = "text-classification"
PARTS = 10  # of the rows by predicted value, in the report's curve


class Data(texts.TextData):
    value: str = Field("value", min_length=1, description="column that holds the number")


Loss = texts.NoLoss


class Params(Section):
    data: Data
    loss: Loss


def columns(data: Data) -> dict[str, str]:
    return texts.columns(data) | {"value": data.value}


def read(
    raw: Raw, data: Data, normalised: Normalised
) -> tuple[dict[str, list[str]], dict[int, str]]:
    written = normalised(raw["value"])
    known = {text: _number(text) for text in set(written)}
    values = [text if known[text] is None else repr(known[text]) for text in written]
    reasons = {
        i: "no value" if not text else f"not a finite number: {text[:60]!r}"
        for i, text in enumerate(written)
        if known[text] is None
    }
    return texts.normalised_texts(raw, normalised) | {"value": values}, reasons


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    # Python takes "1_000" for a number, and a text may have the letters of one.
    return value if math.isfinite(value) and "_" not in text else None


labels = texts.no_labels
check = texts.check_nothing
balance = texts.no_balance


def problems(train: pd.DataFrame, labels: list[str]) -> list[str]:
    if train["value"].nunique() < 2:
        return [
            f"all training rows have the value {train['value'].iloc[0]}; add rows of other ones"
        ]
    return []


def targets(rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
    return rows["value"].to_numpy(dtype=np.float64)


def build_model(base: Path, labels: list[str]) -> tuple[PreTrainedModel, list[str]]:
    return texts.sequence_model(base, [TARGET], "regression")


logits = texts.logits
arguments = texts.no_arguments
kept = texts.all_logits
readable = texts.as_it_is
settle = texts.settle_nothing
decision = texts.no_decision


def learn(target: np.ndarray, labels: list[str], loss: Loss) -> Learnt:
    return {"mean": [float(target.mean())], "deviation": [float(target.std())]}


def loss(
    logits: torch.Tensor, part: dict[str, torch.Tensor], loss: Loss, learnt: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    target = (part["target"].float() - learnt["mean"]) / learnt["deviation"]
    total = (logits.float()[:, 0] - target).square().sum()
    return total, total.new_tensor(float(len(target)))


def fold(model: PreTrainedModel, learnt: Learnt) -> Learnt:
    """The last linear layer gives the user's units, where it has a bias to hold the mean."""
    import torch

    layers = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == 1
    ]
    if not layers or layers[-1].bias is None:
        return learnt
    with torch.no_grad():
        layers[-1].weight.mul_(learnt["deviation"][0])
        layers[-1].bias.mul_(learnt["deviation"][0]).add_(learnt["mean"][0])
    return {}


def scores(
    logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
) -> np.ndarray:
    """The predicted value [n, 1]."""
    values = logits.astype(np.float64)
    return values * learnt["deviation"][0] + learnt["mean"][0] if learnt else values


def decide(
    logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
) -> list[str]:
    return _written(scores(logits, examples, labels, learnt))


def _written(scores: np.ndarray) -> list[str]:
    return [f"{value:.6g}" for value in scores[:, 0].tolist()]


def answers(
    logits: np.ndarray,
    examples: pa.Table | None,
    labels: list[str],
    learnt: Learnt,
    rows: pd.DataFrame,
) -> list[dict[str, Any]]:
    return [{"value": value} for value in scores(logits, examples, labels, learnt)[:, 0].tolist()]


def metrics(target: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """R2 as scikit-learn computes it, Pearson's correlation, squared and absolute error."""
    rows = weights.sum(axis=1)
    error = scores[:, 0] - target
    mse = weights @ error**2 / rows
    spread = _covariance(target, target, weights)
    return {
        "r2": 1 - mse / np.where(_is_one(target, weights), np.nan, spread),
        "pearson": correlation(target, scores[:, 0], weights),
        "mse": mse,
        "mae": weights @ np.abs(error) / rows,
    }


def _covariance(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of x and y, [n] or [b, n], in each resample: [b]."""
    rows = weights.sum(axis=1)
    x = x - ((weights * x).sum(axis=1) / rows)[:, None]
    y = y - ((weights * y).sum(axis=1) / rows)[:, None]
    return (weights * x * y).sum(axis=1) / rows


def correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's, [b]; NaN where x or y is the same in all rows.

    Args:
        x, y: [n], or [b, n] where they differ from resample to resample."""
    spread = _covariance(x, x, weights) * _covariance(y, y, weights)
    flat = _is_one(x, weights) | _is_one(y, weights)
    return _covariance(x, y, weights) / np.sqrt(np.where(flat, np.nan, spread))


def _is_one(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Is x the same in all rows of a resample, [b]? Their variance is not exactly 0 then."""
    drawn = weights > 0
    highest = np.where(drawn, x, -np.inf).max(axis=1)
    return highest == np.where(drawn, x, np.inf).min(axis=1)


def evaluation(
    measures: Any, target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    ranks = (measures.ranks(target, weights), measures.ranks(scores[:, 0], weights))
    return metrics(target, scores, weights) | {"spearman": correlation(*ranks, weights)}


def right(target: np.ndarray, scores: np.ndarray) -> None:
    return None


def severity(target: np.ndarray, scores: np.ndarray) -> tuple[str, np.ndarray]:
    return "error", np.abs(scores[:, 0] - target)


def details(
    measures: Any,
    intervals: Intervals,
    target: np.ndarray,
    scores: np.ndarray,
    labels: list[str],
    rows: pd.DataFrame,
) -> dict[str, list[dict[str, Any]]]:
    return {
        "tables": [measures.spread(target, scores[:, 0])],
        "curves": [measures.by_prediction(intervals, scores[:, 0], PARTS)],
    }


def baselines(train: pd.DataFrame, labels: list[str], baseline: Any) -> dict[str, Predict]:
    from sklearn.dummy import DummyRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline

    ridge = RidgeCV(alphas=np.logspace(-2, 3, 11))
    models = {
        "mean": DummyRegressor(),
        "TF-IDF + ridge regression": make_pipeline(texts.tfidf(baseline), ridge),
    }

    def fitted(model: Any) -> Predict:
        model.fit(texts.joined(train), targets(train, labels))

        def predict(rows: pd.DataFrame) -> tuple[list[str], np.ndarray]:
            found = np.asarray(model.predict(texts.joined(rows)), dtype=np.float64)[:, None]
            return _written(found), found

        return predict

    return {name: fitted(model) for name, model in models.items()}
