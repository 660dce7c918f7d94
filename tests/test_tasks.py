"""The classification task: labels, loss and metrics as the field computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sk

from stages.statistics import bootstrap
from stages.tasks import classification as task

CASES = {
    "random": (np.array([0, 1, 2, 1, 0, 2, 2, 1]), 0),
    "one class absent from the truth": (np.array([0, 1, 1, 0, 1]), 1),
    "one class alone": (np.array([1, 1, 1]), 2),
    "one row": (np.array([2]), 3),
}


@pytest.mark.parametrize("case", CASES)
def test_metrics_equal_scikit_learn(case: str) -> None:
    target, seed = CASES[case]
    scores = np.random.default_rng(seed).dirichlet([1, 1, 1], len(target))
    predicted = scores.argmax(axis=1)
    found = task.metrics(target, scores)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(target, predicted), abs=1e-12)
    f1 = sk.f1_score(target, predicted, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(f1, abs=1e-12)


def test_each_class_equals_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    target, scores = generator.integers(0, 3, 200), generator.dirichlet([1, 1, 1, 1], 200)
    labels = ["a", "b", "c", "never true"]
    found = task.details(target, scores, labels)
    predicted = scores.argmax(axis=1)
    precision, recall, f1, rows = sk.precision_recall_fscore_support(
        target, predicted, labels=[0, 1, 2, 3], zero_division=0
    )
    for i, row in enumerate(found["tables"][0]["rows"][:3]):
        assert row[:2] == [labels[i], rows[i]]
        assert row[2:] == pytest.approx([precision[i], recall[i], f1[i]])
    assert found["tables"][0]["rows"][3][3] is None, "no recall without a true row"
    assert found["matrices"][0]["values"] == sk.confusion_matrix(target, predicted).tolist()


def test_label_order_is_the_users_or_sorted() -> None:
    rows = pd.DataFrame({"label": ["b", "a", "", "b"]})
    given = task.Data(text="text", label="label", labels=["b", "c", "a"], first_of=None)
    assert task.labels(rows, given) == ["b", "c", "a"]
    assert task.labels(rows, task.Data(text="text", label="label", labels=[], first_of=None)) == [
        "a",
        "b",
    ]
    reasons = task.check(rows, ["a", "bb"]).tolist()
    assert reasons == [
        "unknown label 'b'; did you mean 'bb'?", "", "no label", "unknown label 'b'; did you mean 'bb'?"
    ]  # fmt: skip


@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_torch_on_the_whole_batch(weights: Any, smoothing: float) -> None:
    params = task.Loss(class_weights=weights, label_smoothing=smoothing)
    target = np.array([0, 0, 0, 1])
    weight = task.class_weight(target, ["a", "b"], params)
    tensor = None if weight is None else torch.from_numpy(weight)
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    total, count = task.loss(logits, torch.from_numpy(target), params, tensor)
    expected = torch.nn.CrossEntropyLoss(weight=tensor, label_smoothing=smoothing)
    assert float(total / count) == pytest.approx(float(expected(logits, torch.tensor(target))))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    target = np.array([0, 0, 0, 1])
    params = task.Loss(class_weights="balanced", label_smoothing=0.0)
    found = task.class_weight(target, ["a", "b", "absent"], params)
    assert found is not None
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=target)
    assert found.tolist() == pytest.approx([*expected, 0])


def test_probabilities_sum_to_one_for_any_logits() -> None:
    scores = task.scores(np.array([[1000.0, -1000.0], [0.0, 0.0]], dtype=np.float32))
    assert scores.sum(axis=1).tolist() == [1, 1]
    assert task.decide(scores, ["a", "b"]) == ["a", "a"]


def test_interval_of_the_bootstrap() -> None:
    """For accuracy the interval is close to the normal one, and the same seed repeats it."""
    target = np.zeros(400, dtype=int)
    scores = np.tile([[0.9, 0.1]], (400, 1))
    scores[:100] = [0.1, 0.9]
    found = bootstrap(task.metrics, target, scores, samples=2000, seed=0)["accuracy"]
    error = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert found["value"] == 0.75
    assert found["low"] == pytest.approx(0.75 - error, abs=0.005)
    assert found["high"] == pytest.approx(0.75 + error, abs=0.005)
    assert bootstrap(task.metrics, target, scores, samples=2000, seed=0)["accuracy"] == found


def test_baselines_know_absent_classes_and_the_majority() -> None:
    from stages.baseline import Baseline

    params = Baseline(ngrams=2, min_df=1, inverse_penalty=10.0, bootstrap=100, seed=0)
    texts = ["good film", "good food", "bad film", "good price"]
    models = task.baselines(texts, np.array([0, 0, 1, 0]), ["a", "b", "absent"], params)
    for name, predict in models.items():
        scores = predict(["bad bad film", "good"])
        assert scores.shape == (2, 3) and np.allclose(scores.sum(axis=1), 1)
        expected = [0, 0] if name == "majority class" else [1, 0]
        assert scores.argmax(axis=1).tolist() == expected
