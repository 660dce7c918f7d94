"""Training that diverges: refused with what to write, and one bad trial among many."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from stages import __main__
from stages.errors import UserError
from stages.studying import findings, outcomes
from stages.tasks import classification
from stages.training import fitting
from stages.training.callbacks import BestEpoch
from stages.trials import table
from tests import running


@pytest.fixture(autouse=True)
def diverging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project whose loss is no number."""
    monkeypatch.chdir(tmp_path)
    text = "text,label\n" + "".join(
        f"{'good' if i % 2 else 'bad'} {i},{i % 2}\n" for i in range(80)
    )
    running.ready(tmp_path, "classification", text, "x.csv")
    running.run("fetch_model", "prepare", "tokenize")
    loss = classification.loss

    def nothing(*given: Any) -> Any:
        total, count = loss(*given)
        return total * float("nan"), count

    monkeypatch.setattr(classification, "loss", nothing)


def test_finetune_says_which_rate_to_lower(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        running.run("finetune")
    assert str(refused.value) == (
        "params.yaml: finetune.learning_rate: training diverged: the loss is no number from epoch "
        "1 on, got 0.01; write a lower one, such as 0.001"
    )
    assert not Path("models/finetuned").exists() and not Path("results/training.json").exists()
    assert not list(Path("results/run/checkpoints").glob("*"))
    running.put(tmp_path, {"run.method": "lora"})
    with pytest.raises(UserError, match=r"methods\.lora\.learning_rate: training diverged"):
        running.run("finetune")


def test_a_trial_has_no_numbers() -> None:
    __main__.run_trial("trial", ["results/trials/t.json", "trial.rows=16"])
    found = running.json_of("results/trials/t.json")
    # Of logits that are no numbers a class is still the first, and rightly so in some rows.
    assert found["diverged"] and found["validation"] == found["test"] == {}


def test_an_epoch_that_diverged_is_never_the_best() -> None:
    from types import SimpleNamespace

    import torch

    best = BestEpoch("accuracy", patience=1)
    for epoch, (accuracy, loss) in enumerate([(0.6, 0.5), (0.9, float("nan"))], 1):
        module: Any = SimpleNamespace(
            validation={"accuracy": accuracy, "loss": loss},
            train_loss=[torch.tensor(0.5)],
            trained=lambda step: {"step": step},
            settled={},
        )
        best.judge(module, epoch, epoch, 0.1)
    assert best.epoch == 1 and not fitting.diverged(best) and best.stops()


def test_a_study_leaves_out_sizes_that_diverged() -> None:
    def one(value: float | None) -> dict[str, Any]:
        found: dict[str, Any] = {"main_metric": "accuracy", "rows": {"test": 9}, "steps": 1}
        return found | (
            {"test": {}, "diverged": True} if value is None else {"test": {"accuracy": value}}
        )

    of = outcomes.gathered(
        {("full", 16, 0): one(0.9), ("full", 16, 1): one(None), ("full", 99, 0): one(0.8)}
    )
    assert list(of.curves["full"].values) == [99]
    assert "Left out: full with 16 rows, which diverged in a draw." in findings.notes(of)


def outcome(rate: float, **validation: float) -> dict[str, Any]:
    return {
        "overrides": {"finetune.learning_rate": rate},
        "main_metric": "r2",
        "validation": validation,
        "test": {"r2": 0.5},
        "trained_parameters": 9,
    }


def test_a_table_leaves_out_what_has_no_number() -> None:
    trials = [outcome(1e-4, r2=0.4), outcome(1e-2), outcome(1e-2, r2=0.9)]
    board = table.tabulate(trials)
    assert [row.config for row in board.rows] == [{"finetune.learning_rate": 1e-4}]
    assert "left out, for r2 is no number: learning_rate 0.01" in table.told(board)
    assert len(list(csv.DictReader(table.as_csv(board).splitlines()))) == 1
    with pytest.raises(UserError, match="r2 is no number in any configuration"):
        table.tabulate([outcome(1e-2)])
