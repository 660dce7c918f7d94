"""Several labels a row: metrics as scikit-learn has them, thresholds, and labels by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from stages import measures
from stages.errors import UserError
from stages.preparing.normalising import normalised
from stages.statistics import bootstrap
from stages.tasks import multilabel as task
from tests import running


def data(**changes: object) -> task.Data:
    values = {"labels_column": "labels", "separator": ",", "labels": [], "none": False}
    return task.Data(text="text", **values | changes)  # type: ignore[arg-type]


def read(values: list[str], **changes: object) -> tuple[list[list[str]], dict[int, str]]:
    raw = {"text": ["a"] * len(values), "labels": values}
    found, reasons = task.read(raw, data(**changes), normalised)
    return [json.loads(one) for one in found["labels"]], reasons


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from([2, 5]), st.sampled_from([4, 60]))
def test_metrics_equal_scikit_learn(seed: int, k: int, rows: int) -> None:
    """Labels that no row has or gets, rows without any, ties; also in a resample."""
    draw = np.random.default_rng(seed)
    target = (draw.random((rows, k)) < draw.choice([0, 0.2, 0.6], k)).astype(np.int32)
    probability = np.round(draw.random((rows, k)), 1)
    scores = task.with_given(probability, draw.random(k).tolist())
    weights = np.stack([np.ones(rows), np.bincount(draw.integers(0, rows, rows), minlength=rows)])
    found = measures.of(task)(target, scores, weights)
    for number, of in enumerate(weights.astype(int)):
        true, given = np.repeat(target, of, 0), np.repeat(scores[:, k:].astype(int), of, 0)
        chance = np.repeat(probability, of, 0)
        expected = {
            f"{name}_f1": sk.f1_score(true, given, average=of_sk, zero_division=0)
            for name, of_sk in (("micro", "micro"), ("macro", "macro"), ("sample", "samples"))
        }
        expected["subset_accuracy"] = sk.accuracy_score(true, given)
        expected["log_loss"] = np.mean(
            [sk.log_loss(true[:, i], chance[:, i], labels=[0, 1]) for i in range(k)]
        )
        areas = [
            sk.average_precision_score(true[:, i], chance[:, i])
            for i in range(k)
            if 0 < true[:, i].sum() < len(true)
        ]
        expected["pr_auc"] = np.mean(areas) if areas else np.nan
        assert {name: value[number] for name, value in found.items()} == pytest.approx(
            expected, abs=1e-9, nan_ok=True
        )


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), min_size=1))
def test_the_threshold_is_the_one_of_highest_f1(rows: list[tuple[float, bool]]) -> None:
    probability, target = np.array([p for p, _ in rows]), np.array([int(t) for _, t in rows])
    found = task.best_threshold(target, probability)
    if not target.any():
        assert found == 0.5
        return

    def f1(threshold: float) -> float:
        return float(sk.f1_score(target, probability >= threshold, zero_division=0))

    assert f1(found) == max(map(f1, [0.05, 0.15, 0.3, 0.7, 0.95]))


def test_thresholds_are_tuned_on_what_settle_is_given() -> None:
    logits = np.array([[2.0, -3.0], [1.0, -1.0], [-1.0, -2.0]])
    target = np.array([[1, 0], [1, 1], [0, 0]])
    of = {kind: task.settle(target, logits, None, ["a", "b"], {}, task.Loss(thresholds=kind))
          for kind in ("one", "each", "half")}  # fmt: skip
    assert of["half"] == {"thresholds": [0.5, 0.5]}
    low, high = of["each"]["thresholds"]
    assert high < 0.5 and low > high
    assert len(set(of["one"]["thresholds"])) == 1
    assert task.decide(logits, None, ["a", "b"], of["each"]) == ['["a"]', '["a", "b"]', "[]"]


def test_labels_of_a_row_are_a_list_or_one_text() -> None:
    values = [
        '["b, c", "a", "a"]',
        "b,a, ,b",
        "[1, true, 2.5]",
        "[odd",
        "",
        "[]",
        '[["a"]]',
        '{"a": 1}',
    ]
    found, reasons = read(values)
    assert found[:4] == [["a", "b, c"], ["a", "b"], ["1", "2.5", "true"], ["[odd"]]
    assert reasons == {
        4: "no label",
        5: "no label",
        6: "not a list of labels: '[[\"a\"]]'",
        7: "not a list of labels: '{\"a\": 1}'",
    }
    assert read(["", "a;b"], none=True, separator=";") == ([[], ["a", "b"]], {})


def test_an_unknown_label_is_named() -> None:
    rows = pd.DataFrame({"labels": ['["a", "bb"]', "[]"]})
    assert task.check(rows, ["a", "bbb"]).tolist() == [
        "unknown label 'bb'; did you mean 'bbb'?",
        "",
    ]


def test_the_loss_is_torchs() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    total, count = task.loss(logits, {"target": target}, task.Loss(thresholds="one"), {})
    expected = torch.nn.BCEWithLogitsLoss()(logits, target.float())
    assert float(total / count) == pytest.approx(float(expected))


def test_training_begins_at_the_frequencies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before steps of any size, the mean probability of each label is its share of the rows."""
    monkeypatch.chdir(tmp_path)
    given = [["a"] if row % 20 else ["a", "rare"] for row in range(200)]
    rows = [{"text": f"good film {row}", "labels": labels} for row, labels in enumerate(given)]
    raw = "".join(json.dumps(row) + "\n" for row in rows)
    still = {"finetune__learning_rate": 1e-9, "finetune__epochs": 1}
    running.ready(tmp_path, "multilabel", raw, "rows.jsonl", **still)
    running.run("fetch_model", "prepare", "tokenize", "finetune", "evaluate")
    assert running.json_of("models/finetuned/finetuned.json")["learnt"].keys() == {"thresholds"}
    found = pd.read_parquet("results/predictions.parquet")["scores"]
    train = pd.read_parquet("data/prepared/train.parquet")["labels"]
    shares = [train.str.contains(name).mean() for name in ('"a"', '"rare"')]
    assert np.array(found.tolist())[:, :2].mean(axis=0) == pytest.approx(shares, abs=0.02)


def test_details_count_what_was_given_instead() -> None:
    target = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    scores = task.with_given(np.array([[0, 0, 1], [1, 1, 0], [0, 0, 1.0]]), [0.5] * 3)
    labels = ["a", "b", "c"]
    found = task.details(
        measures,
        lambda metrics: bootstrap(metrics, target, scores, 100, 0),
        target,
        scores,
        labels,
        pd.DataFrame(),
    )
    assert found["matrices"][0]["values"] == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    table = found["tables"][0]["rows"]
    assert [row[:2] for row in table] == [["a", 2], ["b", 1], ["c", 1]]
    assert [row[4]["value"] for row in table] == pytest.approx([2 / 3, 1, 2 / 3])


def test_lists_as_pandas_writes_them() -> None:
    written = ["['a b', 'c']", "('c',)", "{'c', 'a b'}", "[]", "(see) c, d", "[1, None]"]
    found, reasons = read(written, none=True)
    assert found == [["a b", "c"], ["c"], ["a b", "c"], [], ["(see) c", "d"], ["1"]]
    assert not reasons
    for strange in ("['a' 'b']", "['a'\n 'b']", "[b'a']", "[...]", "['a', ('b', 'c')]", "[" * 9999):
        assert read([strange + "]" * strange.count("[" * 9)])[1].keys() == {0}
    assert read(["['a b', c]"])[1] == {0: "not a list of labels: \"['a b', c]\""}


def test_many_sets_of_few_labels() -> None:
    """Of 20 labels there are thousands of sets; a column of texts is none of labels."""
    draw = np.random.default_rng(0)
    sets = [[f"genre {k}" for k in draw.choice(20, 4, replace=False)] for _ in range(400)]
    rows = pd.DataFrame({"labels": [json.dumps(sorted(one)) for one in sets]})
    assert rows["labels"].nunique() > 200
    assert len(task.labels(rows, data())) == 20
    of_texts = pd.DataFrame({"labels": [json.dumps([f"text {i}"]) for i in range(300)]})
    with pytest.raises(UserError, match="300 different labels among 300"):
        task.labels(of_texts, data())
