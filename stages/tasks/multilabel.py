"""Any number of labels for a text or a pair: linear head, sigmoid, binary cross-entropy; a label is
given where its probability reaches a threshold that is tuned on the validation split."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
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
TARGET = "labels"
OTHERS = ()
NESTED = ("labels",)
WINDOWED = False
GENERATIVE = False
MAIN_METRIC = SELECTION_METRIC = "micro_f1"
LOWER_IS_BETTER = ("log_loss",)
HUB_TASK = "text-classification"
FOLDS = 5  # of the training rows, for the baseline's threshold


class Data(texts.TextData):
    labels_column: str = Field(
        "labels", min_length=1, description="column of the labels of a row: a list, or one text"
    )
    separator: str = Field(",", min_length=1, description="what parts the labels in one text")
    labels: list[str] = Field(
        [],
        description="the labels, in the order of the model's outputs; empty: those found, sorted",
    )
    none: bool = Field(description="may a row have no label at all?")

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str]) -> list[str]:
        return texts.distinct(labels)


class Loss(Section):
    thresholds: Literal["one", "each", "half"] = Field(
        "one", description="tuned on validation: one for all labels, or one each; or 0.5"
    )


class Params(Section):
    data: Data
    loss: Loss


def columns(data: Data) -> dict[str, str]:
    return texts.columns(data) | {"labels": data.labels_column}


def read(
    raw: Raw, data: Data, normalised: Normalised
) -> tuple[dict[str, list[str]], dict[int, str]]:
    """The labels of a row are a list in JSON, sorted, each once."""
    known = {text: _list(text, data.separator, normalised) for text in set(raw["labels"])}
    reasons = {}
    for i, text in enumerate(raw["labels"]):
        if known[text] is None:
            reasons[i] = f"not a list of labels: {text[:60]!r}"
        elif not known[text] and not data.none:
            reasons[i] = "no label"
    written = {text: _written(found or []) for text, found in known.items()}
    found = [written[text] for text in raw["labels"]]
    return texts.normalised_texts(raw, normalised) | {"labels": found}, reasons


def _list(text: str, separator: str, normalised: Normalised) -> list[str] | None:
    """Of a list in JSON, or as Python and so pandas writes it, or else of the parts of a text; None
    where it is no list, or one of other lists. What is missing is no label."""
    ends = text.strip()[:1] + text.strip()[-1:]
    values = _literal(text) if ends in ("[]", "{}", "()") else None
    if values is None and ends not in ("[]", "{}"):
        values = text.split(separator)
    plain = str | int | float | bool | None
    if not isinstance(values, list) or not all(isinstance(value, plain) for value in values):
        return None
    names = [_name(value) for value in values]
    return [name for name in normalised(names) if name]


def _name(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _literal(text: str) -> Any:
    """The value that is written in JSON or Python; None where it is in neither, or where Python
    would make one text of two, which is how NumPy writes lists."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if re.search(r"""['"]\s+['"]""", text):
        return None
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return list(value) if isinstance(value, tuple | set | frozenset) else value


def _written(labels: list[str]) -> str:
    return json.dumps(sorted(set(labels)), ensure_ascii=False)


def _sets(rows: pd.DataFrame) -> list[list[str]]:
    known = {text: json.loads(text) for text in rows["labels"].unique()}
    return [known[text] for text in rows["labels"]]


def labels(rows: pd.DataFrame, data: Data) -> list[str]:
    found = [label for of in _sets(rows) for label in of]
    texts.refuse_texts_as_labels(found, data.labels_column, data.labels)
    return list(data.labels) or sorted(set(found))


def check(rows: pd.DataFrame, labels: list[str]) -> pd.Series:
    known = set(labels)
    reasons = {}
    for text in rows["labels"].unique():
        strange = [label for label in json.loads(text) if label not in known]
        reasons[text] = (
            f"unknown label {strange[0]!r}; {did_you_mean(strange[0], labels)}" if strange else ""
        )
    return rows["labels"].map(reasons)


def balance(rows: pd.DataFrame, labels: list[str]) -> dict[str, int]:
    counts = targets(rows, labels).sum(axis=0).tolist()
    return dict(zip(labels, counts, strict=True))


def problems(train: pd.DataFrame, labels: list[str]) -> list[str]:
    if len(labels) < 2:
        return [f"{len(labels) or 'no'} label; for one, yes or no, use the task classification"]
    return texts.untrained(balance(train, labels))


def targets(rows: pd.DataFrame, labels: list[str]) -> np.ndarray:
    """1 where a row has a label, else 0: [n, k]."""
    index = {label: number for number, label in enumerate(labels)}
    found = np.zeros((len(rows), len(labels)), dtype=np.int32)
    for row, of in enumerate(_sets(rows)):
        found[row, [index[label] for label in of]] = 1
    return found


def build_model(base: Path, labels: list[str]) -> tuple[PreTrainedModel, list[str]]:
    return texts.sequence_model(base, labels, "multi_label_classification")


logits = texts.logits
arguments = texts.no_arguments
kept = texts.all_logits
fold = texts.fold_nothing


def learn(target: np.ndarray, labels: list[str], loss: Loss) -> Learnt:
    """Log-odds of each label, one row with and one without it added: most labels are rare, and
    steps of a low learning rate take hundreds to come from even odds to theirs (Lin et al., "Focal
    Loss for Dense Object Detection", 2017, arXiv:1708.02002, 4.1)."""
    with_label = target.sum(axis=0) + 1
    return {"prior": np.log(with_label / (len(target) + 2 - with_label)).tolist()}


def loss(
    logits: torch.Tensor, part: dict[str, torch.Tensor], loss: Loss, learnt: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each row the mean over labels, as transformers has it."""
    import torch

    total = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.float(), part["target"].float(), reduction="sum"
    )
    return total, total.new_tensor(float(logits.numel()))


def settle(
    target: np.ndarray,
    logits: np.ndarray,
    examples: pa.Table,
    labels: list[str],
    learnt: Learnt,
    loss: Loss,
) -> Learnt:
    found = _sigmoid(logits)
    if loss.thresholds == "half":
        return {"thresholds": [0.5] * len(labels)}
    if loss.thresholds == "one":
        return {"thresholds": [best_threshold(target.ravel(), found.ravel())] * len(labels)}
    return {"thresholds": [best_threshold(target[:, k], found[:, k]) for k in range(len(labels))]}


def decision(learnt: Learnt) -> str:
    thresholds = learnt["thresholds"]
    if set(thresholds) == {0.5}:
        return "A label is given where the sigmoid of its output reaches 0.5."
    listed = ", ".join(f"{value:.4g}" for value in thresholds)
    return (
        "A label is given where the sigmoid of its output reaches its threshold, tuned on the "
        f"validation split. In the order above: {listed}."
    )


def best_threshold(target: np.ndarray, probability: np.ndarray) -> float:
    """The one of highest F1, halfway between two probabilities that occur; 0.5 where nothing is
    positive."""
    if not target.any():
        return 0.5
    order = np.argsort(-probability, kind="stable")
    falling = probability[order]
    right = np.cumsum(target[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + right[-1])
    f1[:-1][falling[:-1] == falling[1:]] = -1.0  # no threshold parts equal probabilities
    last = int(f1.argmax())
    below = falling[last + 1] if last + 1 < len(order) else 0.0
    return float((falling[last] + below) / 2)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))  # never overflows


def scores(
    logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
) -> np.ndarray:
    """Probabilities, and then 1 for each label that is given: [n, 2 k]."""
    return with_given(_sigmoid(logits), learnt["thresholds"])


def with_given(probability: np.ndarray, thresholds: list[float]) -> np.ndarray:
    return np.concatenate([probability, probability >= np.array(thresholds)], axis=1)


def _names(scores: np.ndarray, labels: list[str]) -> list[str]:
    given = scores[:, len(labels) :] > 0
    return [_written([labels[k] for k in np.flatnonzero(row)]) for row in given]


def decide(
    logits: np.ndarray, examples: pa.Table | None, labels: list[str], learnt: Learnt
) -> list[str]:
    return _names(scores(logits, examples, labels, learnt), labels)


def readable(target: str, row: Mapping[str, Any], labels: list[str]) -> str:
    given = json.loads(target)
    # A comma within a name must not read like one between names.
    return ", ".join(f"“{one}”" if "," in one else one for one in given) or "(none)"


def answers(
    logits: np.ndarray,
    examples: pa.Table | None,
    labels: list[str],
    learnt: Learnt,
    rows: pd.DataFrame,
) -> list[dict[str, Any]]:
    found = scores(logits, examples, labels, learnt)
    return [
        {"labels": json.loads(names), "probabilities": dict(zip(labels, row, strict=False))}
        for names, row in zip(_names(found, labels), found.tolist(), strict=True)
    ]


def _hits(target: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels rightly given, had and given, [n, k] each."""
    given = scores[:, target.shape[1] :]
    return given * target, target, given


def metrics(target: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """F1 over all pairs of row and label, its mean over labels, and its mean over rows, with 0 for
    0 / 0 as in scikit-learn; and the share of rows whose labels are all right."""
    hits, had, given = _hits(target, scores)
    of_labels = [weights @ counts for counts in (hits, had, given)]
    micro = [counts.sum(axis=1) for counts in of_labels]
    of_rows = _f1(hits.sum(axis=1), had.sum(axis=1), given.sum(axis=1))
    rows = weights.sum(axis=1)
    return {
        "micro_f1": _f1(*micro),
        "macro_f1": _f1(*of_labels).mean(axis=1),
        "sample_f1": weights @ of_rows / rows,
        "subset_accuracy": weights @ right(target, scores) / rows,
    }


def _f1(hits: np.ndarray, had: np.ndarray, given: np.ndarray) -> np.ndarray:
    return 2 * hits / np.maximum(had + given, 1e-300)


def evaluation(
    measures: Any, target: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    return metrics(target, scores, weights) | measures.of_binaries(target, scores, weights)


def right(target: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return (scores[:, target.shape[1] :] == target).all(axis=1)


def severity(target: np.ndarray, scores: np.ndarray) -> tuple[str, np.ndarray]:
    return "distance", np.abs(scores[:, : target.shape[1]] - target).sum(axis=1)


def details(
    measures: Any,
    intervals: Intervals,
    target: np.ndarray,
    scores: np.ndarray,
    labels: list[str],
    rows: pd.DataFrame,
) -> dict[str, list[dict[str, Any]]]:
    return {
        "tables": [measures.by_binary(intervals, target, labels)],
        "matrices": [measures.together(target, scores, labels)],
    }


def baselines(train: pd.DataFrame, labels: list[str], baseline: Any) -> dict[str, Predict]:
    """The baseline's threshold is tuned too: on training rows that it was not fitted on."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    logistic = LogisticRegression(C=baseline.inverse_penalty, max_iter=1000)
    models = {
        "label frequencies": OneVsRestClassifier(DummyClassifier(strategy="prior")),
        "TF-IDF + logistic regression": make_pipeline(
            texts.tfidf(baseline), OneVsRestClassifier(logistic)
        ),
    }

    def fitted(model: Any) -> Predict:
        words, target = texts.joined(train), targets(train, labels)
        threshold = 0.5
        if len(train) > 1:
            folds = KFold(min(FOLDS, len(train)), shuffle=True, random_state=baseline.seed)
            held_out = cross_val_predict(model, words, target, cv=folds, method="predict_proba")
            threshold = best_threshold(target.ravel(), held_out.ravel())
        model.fit(words, target)

        def predict(rows: pd.DataFrame) -> tuple[list[str], np.ndarray]:
            found = with_given(model.predict_proba(texts.joined(rows)), [threshold] * len(labels))
            return _names(found, labels), found

        return predict

    return {name: fitted(model) for name, model in models.items()}
