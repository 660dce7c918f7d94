"""Single-label classification of one text: linear head, softmax, cross-entropy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from stages.errors import did_you_mean
from stages.params import Section

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from stages.tasks.base import Intervals, Scores

TEXTS = ("text",)
TARGET = "label"
MAIN_METRIC = "accuracy"
LOWER_IS_BETTER = ("log_loss", "ece")
HUB_TASK = "text-classification"


class Data(Section):
    text: str = Field("text", min_length=1, description="column that holds the text")
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
    def _distinct(cls, labels: list[str]) -> list[str]:
        if len(set(labels)) < len(labels):
            raise ValueError("a label is listed twice; write each label once")
        if len(labels) == 1:
            raise ValueError("one label only; write two or more, or [] to take those in the data")
        return labels


class Loss(Section):
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: a class counts inversely to its frequency"
    )


class Params(Section):
    data: Data
    loss: Loss


def columns(data: Data) -> dict[str, str]:
    return {"text": data.text, "label": data.label}


def raw_targets(targets: pd.Series, data: Data) -> pd.Series:
    if data.first_of is None:
        return targets
    first = {value: value.partition(data.first_of)[0].strip() for value in targets.unique()}
    return targets.map(first)


def labels(rows: pd.DataFrame, data: Data) -> list[str]:
    return list(data.labels) or sorted(set(rows["label"].unique()) - {""})


def check(rows: pd.DataFrame, labels: list[str]) -> pd.Series:
    reasons = dict.fromkeys(labels, "") | {"": "no label"}
    for label in set(rows["label"].unique()) - set(reasons):
        reasons[label] = f"unknown label {label!r}; {did_you_mean(label, labels)}"
    return rows["label"].map(reasons)


def targets(rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
    index = {label: number for number, label in enumerate(labels)}
    return rows["label"].map(index).to_numpy(dtype=np.int32)


def build_model(base: Path, labels: list[str]) -> tuple[PreTrainedModel, list[str]]:
    import torch
    from transformers import AutoModelForSequenceClassification

    model, info = AutoModelForSequenceClassification.from_pretrained(
        base,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        dtype=torch.float32,
        local_files_only=True,
        output_loading_info=True,
    )
    return model, sorted(info["missing_keys"])


def loss(
    logits: torch.Tensor, target: torch.Tensor, loss: Loss, weight: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    total = torch.nn.functional.cross_entropy(
        logits.float(),
        target,
        weight=weight,
        label_smoothing=loss.label_smoothing,
        reduction="sum",
    )
    count = torch.tensor(float(len(target))) if weight is None else weight[target].sum()
    return total, count.to(total.device)


def class_weight(targets: np.ndarray, labels: list[str], loss: Loss) -> np.ndarray | None:
    """`balanced`: rows / (classes * rows of the class), as in King and Zeng, "Logistic
    Regression in Rare Events Data", 2001; a class without training rows counts 0."""
    if loss.class_weights == "none":
        return None
    counts = np.bincount(targets, minlength=len(labels))
    present = counts > 0
    weight = np.zeros(len(labels), dtype=np.float32)
    weight[present] = len(targets) / (present.sum() * counts[present])
    return weight


def scores(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def decide(scores: np.ndarray, labels: list[str]) -> list[str]:
    return [labels[number] for number in scores.argmax(axis=1)]


def answers(scores: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "probabilities": dict(zip(labels, row.astype(float).tolist(), strict=True)),
        }
        for label, row in zip(decide(scores, labels), scores, strict=True)
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


def details(
    measures: Any, intervals: Intervals, target: np.ndarray, scores: np.ndarray, labels: list[str]
) -> dict[str, list[dict[str, Any]]]:
    return {
        "tables": [measures.by_label(intervals, target, labels)],
        "matrices": [measures.confusion(target, scores, labels)],
        "curves": [measures.curve(intervals)],
    }


def baselines(
    texts: list[str], target: np.ndarray, labels: list[str], baseline: Any
) -> dict[str, Scores]:
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    tfidf = TfidfVectorizer(
        ngram_range=(1, baseline.ngrams), min_df=baseline.min_df, sublinear_tf=True
    )
    logistic = LogisticRegression(C=baseline.inverse_penalty, max_iter=1000)
    models = {
        "majority class": DummyClassifier(strategy="prior"),
        "TF-IDF + logistic regression": make_pipeline(tfidf, logistic),
    }

    def fitted(model: Any) -> Scores:
        model.fit(texts, target)

        def predict(unseen: list[str]) -> np.ndarray:
            result = np.zeros((len(unseen), len(labels)))
            result[:, model.classes_] = model.predict_proba(unseen)  # absent classes stay 0
            return result

        return predict

    return {name: fitted(model) for name, model in models.items()}
