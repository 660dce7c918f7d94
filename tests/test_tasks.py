"""The classification task: labels, loss and metrics as the field computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from stages.tasks import classification as task


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
    learnt = {k: torch.tensor(v) for k, v in task.learn(target, ["a", "b"], params).items()}
    assert set(learnt) == ({"class_weight"} if weights == "balanced" else set())
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    total, count = task.loss(logits, {"target": torch.from_numpy(target)}, params, learnt)
    weight = learnt.get("class_weight")
    expected = torch.nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)
    assert float(total / count) == pytest.approx(float(expected(logits, torch.tensor(target))))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    target = np.array([0, 0, 0, 1])
    params = task.Loss(class_weights="balanced", label_smoothing=0.0)
    found = task.learn(target, ["a", "b", "absent"], params)["class_weight"]
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=target)
    assert found == pytest.approx([*expected, 0])


def test_probabilities_sum_to_one_for_any_logits() -> None:
    logits = np.array([[1000.0, -1000.0], [0.0, 0.0]], dtype=np.float32)
    assert task.scores(logits, None, ["a", "b"], {}).sum(axis=1).tolist() == [1, 1]
    assert task.decide(logits, None, ["a", "b"], {}) == ["a", "a"]


def test_baselines_know_absent_classes_and_the_majority() -> None:
    from stages.baseline import Baseline

    params = Baseline(ngrams=2, min_df=1, inverse_penalty=10.0, bootstrap=100, seed=0)
    texts = ["good film", "good food", "bad film", "good price"]
    train = pd.DataFrame({"text": texts, "label": ["a", "a", "b", "a"]})
    models = task.baselines(train, ["a", "b", "absent"], params)
    for name, predict in models.items():
        _, scores = predict(pd.DataFrame({"text": ["bad bad film", "good"]}))
        assert scores.shape == (2, 3) and np.allclose(scores.sum(axis=1), 1)
        expected = [0, 0] if name == "majority class" else [1, 0]
        assert scores.argmax(axis=1).tolist() == expected


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["good film", "bad food"], ["a", "a"]),  # one class
        (["good film", "good food"], ["a", "b"]),  # fewer rows than min_df
        (["good film", "bad food"], ["a", "b"]),  # no word is in two rows
        (["🙂", "🙃 x"], ["a", "b"]),  # no word at all
    ],
)
def test_baselines_of_few_rows_of_any_kind(texts: list[str], labels: list[str]) -> None:
    from stages.baseline import Baseline

    params = Baseline(ngrams=1, min_df=2, inverse_penalty=1e6, bootstrap=100, seed=0)
    train = pd.DataFrame({"text": texts, "label": labels})
    for min_df in (2, 5):
        models = task.baselines(train, ["a", "b"], params.model_copy(update={"min_df": min_df}))
        found = models["TF-IDF + logistic regression"](train)[0]
        assert found == labels or texts == ["good film", "good food"]
