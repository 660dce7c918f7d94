"""A new task is one file and one section of params.yaml: nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tests import project as projects

TOY = '''"""Yes or no by one number: linear head, sigmoid, binary cross-entropy."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from stages.common import texts
from stages.params import Section

TEXTS, TARGET, OTHERS, NESTED = ("text",), "answer", (), ()
WINDOWED = False
GENERATIVE = False
MAIN_METRIC = SELECTION_METRIC = "accuracy"
LOWER_IS_BETTER = ("brier",)
HUB_TASK = "text-classification"


class Data(texts.TextData):
    answer: str = Field(description="column of yes or no")
    yes: str = Field(description="what stands there for yes")


class Loss(Section):
    smoothing: float = Field(ge=0, lt=1)


class Params(Section):
    data: Data
    loss: Loss


def columns(data):
    return {"text": data.text, "answer": data.answer}


def read(raw, data, normalised):
    answers = ["yes" if one == data.yes else "no" for one in normalised(raw["answer"])]
    reasons = {i: "no answer" for i, one in enumerate(raw["answer"]) if not one}
    return texts.normalised_texts({"text": raw["text"]}, normalised) | {"answer": answers}, reasons


def labels(rows, data):
    return ["yes"]


def check(rows, labels):
    return rows["answer"].str[:0]


def balance(rows, labels):
    return {"yes": int((rows["answer"] == "yes").sum())}


def problems(train, labels):
    return texts.untrained(balance(train, labels))


def targets(rows, labels):
    return (rows["answer"] == "yes").to_numpy(dtype=np.int32)


def build_model(base, labels):
    return texts.sequence_model(base, labels, "multi_label_classification")


logits = texts.logits
arguments = texts.no_arguments
kept = texts.all_logits
readable = texts.as_it_is
settle = texts.settle_nothing
decision = texts.no_decision
fold = texts.fold_nothing


def learn(target, labels, loss):
    return {}


def loss(logits, part, loss, learnt):
    import torch

    target = part["target"].float() * (1 - loss.smoothing) + loss.smoothing / 2
    total = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.float()[:, 0], target, reduction="sum"
    )
    return total, total.new_tensor(float(len(target)))


def scores(logits, examples, labels, learnt):
    return 1 / (1 + np.exp(-logits))


def _written(scores):
    return ["yes" if one >= 0.5 else "no" for one in scores[:, 0]]


def decide(logits, examples, labels, learnt):
    return _written(scores(logits, examples, labels, learnt))


def answers(logits, examples, labels, learnt, rows):
    return [{"answer": one} for one in decide(logits, examples, labels, learnt)]


def metrics(target, scores, weights):
    return {"accuracy": weights @ right(target, scores) / weights.sum(axis=1)}


def evaluation(measures, target, scores, weights):
    brier = weights @ (scores[:, 0] - target) ** 2 / weights.sum(axis=1)
    return metrics(target, scores, weights) | {"brier": brier}


def right(target, scores):
    return (scores[:, 0] >= 0.5) == (target > 0)


def severity(target, scores):
    return "distance", np.abs(scores[:, 0] - target)


def details(measures, intervals, target, scores, labels, rows):
    return {}


def baselines(train, labels, baseline):
    share = float(targets(train, labels).mean())

    def predict(rows):
        found = np.full((len(rows), 1), share)
        return _written(found), found

    return {"share of yes": predict}
'''


def test_a_task_from_a_file_and_a_section_runs_end_to_end(tmp_path: Path) -> None:
    project = projects.make(tmp_path, rows=200)
    (tmp_path / "stages/tasks/toy.py").write_text(TOY)

    def section(content: Any) -> None:
        content["tasks"]["toy"] = {
            "data": {"text": "text", "text_pair": None, "answer": "label", "yes": "positive"},
            "loss": {"smoothing": 0.1},
        }
        content["run"]["task"] = "toy"
        content["finetune"] |= {"epochs": 4, "learning_rate": 0.01, "warmup_epochs": 0.5}

    project.edit("params.yaml", section)
    assert "valid: toy by full" in project("python", "-m", "stages", "check")
    project.repro()
    assert project("git", "diff", "--name-only").split() == ["params.yaml"]
    metrics = json.loads((tmp_path / "results/metrics.json").read_text())["metrics"]
    assert set(metrics) == {"accuracy", "brier"}
    accuracy = metrics["accuracy"]  # all right, it has no interval
    assert (accuracy["low"] or accuracy["value"]) > 0.6, "the words of the rows tell the answer"
    predictions = pd.read_parquet(tmp_path / "results/predictions.parquet")
    assert set(predictions["predicted"]) <= {"yes", "no"}
    (line,) = project("python", "-m", "stages", "predict", "the good and happy one").splitlines()
    assert json.loads(line)["answer"] in ("yes", "no")
    assert "share of yes" in (tmp_path / "results/report.html").read_text()
