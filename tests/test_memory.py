"""The estimate of memory: it follows what is trained and how, and refuses what cannot fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from stages.errors import UserError
from stages.training import fitting, memory
from stages.training.data import Splits
from stages.training.machine import configure
from tests import tiny
from tests.test_training import LABELS, sections, table


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.make_base(tmp_path / "data/base")


class StoppedError(Exception):
    """In the place of training."""


def estimated(monkeypatch: pytest.MonkeyPatch, method: str = "full", **changes: Any) -> Any:
    """The estimate, without the training."""
    kept = []

    def require(found: memory.Estimate, *_: Any) -> int:
        kept.append(found)
        raise StoppedError

    monkeypatch.setattr(memory, "require", require)
    with pytest.raises(StoppedError):
        fit(method, **changes)
    return kept[0]


def fit(method: str = "full", rows: int = 64, **changes: Any) -> tuple[Any, Any]:
    params, run = sections(method, **({"epochs": 1} | changes))
    machine = configure("cpu", "float32", 1)
    return fitting.fit(params, run, machine, LABELS, table(rows), table(8, seed=1))


def test_a_resumed_run_expects_what_the_first_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heaviest batch of the first epoch, also where training goes on in another one."""
    first, begun = estimated(monkeypatch), []

    class Later(Splits):
        start = property(lambda _: (2, 5), lambda _self, start: begun.append(start))

    monkeypatch.setattr("stages.training.data.Splits", Later)
    later = estimated(monkeypatch)
    assert begun and later.of_training() == first.of_training()


def test_what_is_trained_and_how_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    small = estimated(monkeypatch, batch_size=8)
    large = estimated(monkeypatch, batch_size=32)
    assert 3 < large.activations / small.activations < 5
    assert small.optimizer == 2 * small.gradients == 2 * small.weights > 0
    head = estimated(monkeypatch, "head_only", batch_size=32)
    assert head.weights == small.weights > 10 * head.gradients
    assert large.activations > 10 * head.activations
    again = estimated(monkeypatch, batch_size=32, gradient_checkpointing=True)
    assert again.activations < 0.8 * large.activations


def test_activations_are_what_a_step_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows of one length: foretold from two and four of them, and counted for all 32."""
    params, run = sections("full", epochs=1, batch_size=32)
    rows = pa.concat_tables([table(1)] * 32)
    machine = configure("cpu", "float32", 1)
    kept: list[Any] = []
    seen = memory.estimate

    def note(module: Any, splits: Any, *args: Any, **more: Any) -> memory.Estimate:
        found = seen(module, splits, *args, **more)
        (batch,) = list(splits.order())
        real = memory._kept_for_the_way_back(module, splits.train, batch, "cpu", "float32")
        kept.append((found.activations, real))
        return found

    monkeypatch.setattr(memory, "estimate", note)
    fitting.fit(params, run, machine, LABELS, rows, rows)
    ((found, real),) = kept
    assert found == pytest.approx(real, rel=0.25)


def test_what_cannot_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    found = memory.Estimate(*[10, 10, 20, 640, 60])
    monkeypatch.setattr(memory, "memory", lambda _: (50, 420))
    with pytest.raises(UserError, match=r"finetune.batch_size: .* got 32; write at most 16, and"):
        memory.require(found, 32, "batch_size", "cpu")
    monkeypatch.setattr(memory, "memory", lambda _: (50, 740))
    assert memory.require(found, 32, "batch_size", "cpu") == 50
    monkeypatch.setattr(memory, "memory", lambda _: (50, 90))
    with pytest.raises(UserError, match=r"run.method: .* however small a batch"):
        memory.require(found, 32, "batch_size", "cpu")


def test_the_device_has_what_the_machine_has() -> None:
    free, whole = memory.memory("cpu")
    assert 0 < free <= whole


@pytest.mark.parametrize("method", ["full", "lora", "freeze"])
def test_layers_computed_again_give_the_same_weights(method: str) -> None:
    """With dropout: what is dropped is the same on the way back, to the last bit."""
    once, twice = (
        fit(method, dropout=0.1, gradient_checkpointing=again)[1].weights for again in (False, True)
    )
    for name, weight in once.items():
        assert torch.equal(weight, twice[name]), name


def test_prefixes_would_be_lost_on_the_way_back() -> None:
    with pytest.raises(UserError, match=r"finetune\.gradient_checkpointing: .*of prefix, got true"):
        fit("prefix", gradient_checkpointing=True)


def test_layers_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.bert.modeling_bert import BertIntermediate

    calls = []
    forward = BertIntermediate.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(torch.is_grad_enabled())
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(BertIntermediate, "forward", counted)
    fit(rows=8, gradient_checkpointing=False)
    plain = calls.count(True)
    calls.clear()
    fit(rows=8, gradient_checkpointing=True)
    assert calls.count(True) == plain + tiny.LAYERS
