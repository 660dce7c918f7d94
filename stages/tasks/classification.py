"""Single-label classification of a text or a pair: linear head, softmax, cross-entropy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from stages.common import texts
from stages.errors import did_you_mean
from stages.params import Section

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import torch
    from transformers import PreTrainedModel

    from stages.tasks.base import Intervals, Learnt, Normalised, Predict, Raw

TEXTS = texts.TEXTS
TARGET = "label"
OTHERS = ()
NESTED = ()
WINDOWED = False
GENERATIVE = False
MAIN_METRIC = SELECTION_METRIC = "accuracy"
LOWER_IS_BETTER = ("log_loss", "ece")
HUB_TASK = "text-classification"


class Data(texts.TextData):
    label: str = Field("label", min_length=1, description="column that holds the label")
    labels: list[str] = Field(
        [],
        description="the labels, in the order of the model's outputs; "
        "empty: those found in the data, sorted",
    )

    first_of: str | None = Field(
        min_length=1, description="what parts several labels of a row, of which the first is used"
    )

    @field_validator("labels")
    @classmethod
    def _two(cls, labels: list[str]) -> list[str]:
        if len(labels) == 1:
            raise ValueError("one label only; write two or more, or [] to take those in the data")
        return texts.distinct(labels)


class Loss(Section):
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: a class counts inversely to its frequency"
    )


class Params(Section):
    data: Data
    loss: Loss


def columns(data: Data) -> dict[str, str]:
    return texts.columns(data) | {"label": data.label}


def read(
    raw: Raw, data: Data, normalised: Normalised
) -> tuple[dict[str, list[str]], dict[int, str]]:
    found = normalised(raw["label"])
    if data.first_of is not None:
        first = {label: label.partition(data.first_of)[0].strip() for label in set(found)}
        found = [first[label] for label in found]
    return texts.normalised_texts(raw, normalised) | {"label": found}, {}


def labels(rows: pd.DataFrame, data: Data) -> list[str]:
    texts.refuse_texts_as_labels(rows["label"].tolist(), data.label, data.labels)
    return list(data.labels) or sorted(set(rows["label"].unique()) - {""})


def check(rows: pd.DataFrame, labels: list[str]) -> pd.Series:
    reasons = dict.fromkeys(labels, "") | {"": "no label"}
    for label in set(rows["label"].unique()) - set(reasons):
        reasons[label] = f"unknown label {label!r}; {did_you_mean(label, labels)}"
    return rows["label"].map(reasons)


def balance(rows: pd.DataFrame, labels: list[str]) -> dict[str, int]:
    counts = rows["label"].value_counts()
    return {label: int(counts.get(label, 0)) for label in labels}


def problems(train: pd.DataFrame, labels: list[str]) -> list[str]:
    if len(labels) == 1:
        return [f"one label only, {labels[0]!r}; add rows of at least another one"]
    return texts.untrained(balance(train, labels))


def targets(rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
    index = {label: number for number, label in enumerate(labels)}
    return rows["label"].map(index).to_numpy(dtype=np.int32)


def build_model(base: Path, labels: list[str]) -> tuple[PreTrainedModel, list[str]]:
    return texts.sequence_model(base, labels, "single_label_classification")


logits = texts.logits
arguments = texts.no_arguments
kept = texts.all_logits
readable = texts.as_it_is
settle = texts.settle_nothing
decision = texts.no_decision
fold = texts.fold_nothing


def learn(target: np.ndarray, labels: list[str], loss: Loss) -> Learnt:
    """`balanced`: rows / (classes * rows of the class), as in King and Zeng, "Logistic
    Regression in Rare Events Data", 2001; a class without training rows counts 0."""
    if loss.class_weights == "none":
        return {}
    counts = np.bincount(target, minlength=len(labels))
    present = counts > 0
    weight = np.zeros(len(labels))
    weight[present] = len(target) / (present.sum() * counts[present])
    return {"class_weight": weight.tolist()}


def loss(
    logits: torch.Tensor, part: dict[str, torch.Tensor], loss: Loss, learnt: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    target, weight = part["target"], learnt.get("class_weight")
    total = torch.nn.functional.cross_entropy(
        logits.float(),
        target,
        weight=weight,
        label_smoothing=loss.label_smoothing,
        reduction="sum",
    )
    count = torch.tensor(float(len(target))) if weight is None else weight[target].sum()
    return total, count.to(total.device)


def scores(
    logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def decide(
    logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
) -> list[str]:
    return [labels[number] for number in logits.argmax(axis=1)]


def answers(
    logits: np.ndarray,
    examples: pa.Table | None,
    labels: list[str],
    learnt: Learnt,
    rows: pd.DataFrame,
) -> list[dict[str, Any]]:
    found = scores(logits, examples, labels, learnt).astype(float).tolist()
    return [
        {"label": label, "probabilities": dict(zip(labels, row, strict=True))}
        for label, row in zip(decide(logits, examples, labels, learnt), found, strict=True)
    ]


def tallies(
    target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of each class that are predicted rightly, that have it, that are given it; [b, k]."""
    k, predicted = scores.shape[1], scores.argmax(axis=1)
    start = k * np.arange(len(weights))[:, None]

    def tally(classes: np.ndarray, counts: np.ndarray) -> np.ndarray:
        cells = (start + classes).ravel()
        return np.bincount(cells, counts.ravel(), minlength=k * len(counts)).reshape(-1, k)

    right = tally(target, weights * (predicted == target))
    return right, tally(target, weights), tally(predicted, weights)


def metrics(target: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, and macro F1 over the classes that occur in target or prediction, as
    scikit-learn computes it."""
    right, true, predicted = tallies(target, scores, weights)
    seen = (true + predicted) > 0
    f1 = 2 * right / np.where(seen, true + predicted, 1)
    return {
        "accuracy": right.sum(axis=1) / true.sum(axis=1),
        "macro_f1": f1.sum(axis=1) / seen.sum(axis=1),
    }


def evaluation(
    measures: Any, target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    roc_auc, pr_auc = measures.areas(target, scores, weights)
    return metrics(target, scores, weights) | {
        "mcc": measures.mcc(*tallies(target, scores, weights)),
        "roc_auc": roc_auc,
        "pr_auc": pr_auc,
        "log_loss": measures.log_loss(target, scores, weights),
        "ece": measures.calibration_error(target, scores, weights),
    }


def right(target: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return scores.argmax(axis=1) == target


def severity(target: np.ndarray, scores: np.ndarray) -> tuple[str, np.ndarray]:
    return "confidence", scores.max(axis=1)


def details(
    measures: Any,
    intervals: Intervals,
    target: np.ndarray,
    scores: np.ndarray,
    labels: list[str],
    rows: pd.DataFrame,
) -> dict[str, list[dict[str, Any]]]:
    return {
        "tables": [measures.by_label(intervals, target, labels)],
        "matrices": [measures.confusion(target, scores, labels)],
        "curves": [measures.curve(intervals)],
    }


def baselines(train: pd.DataFrame, labels: list[str], baseline: Any) -> dict[str, Predict]:
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    target = targets(train, labels)
    logistic: Any = DummyClassifier(strategy="prior")
    if len(set(target)) > 1:  # few rows drawn may all be of one class
        logistic = LogisticRegression(C=baseline.inverse_penalty, max_iter=1000)
    models = {
        "majority class": DummyClassifier(strategy="prior"),
        "TF-IDF + logistic regression": make_pipeline(texts.tfidf(baseline), logistic),
    }

    def fitted(model: Any) -> Predict:
        model.fit(texts.joined(train), target)

        def predict(rows: pd.DataFrame) -> tuple[list[str], np.ndarray]:
            result = np.zeros((len(rows), len(labels)))
            # Columns of absent classes stay 0.
            result[:, model.classes_] = model.predict_proba(texts.joined(rows))
            return [labels[number] for number in result.argmax(axis=1)], result

        return predict

    return {name: fitted(model) for name, model in models.items()}
