"""Fine-tuning: which weights change, what a batch is, and that results repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from stages import check, plugins
from stages.errors import UserError
from stages.params import Run
from stages.training import fitting, weights
from stages.training.batching import ByLength, Rows, Shuffled
from stages.training.machine import Machine, configure
from stages.training.module import FineTuning
from stages.training.predicting import predict
from stages.training.schedule import Optimization, steps_per_epoch
from tests import project as projects
from tests import tiny

LABELS = ["negative", "positive"]
METHODS = plugins.names("methods")
MACHINE = Machine("cpu", "float32", 1, "any")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.make_base(tmp_path / "data/base")
    return tmp_path


def sections(method: str = "full", **changes: Any) -> tuple[fitting.Finetune, Run]:
    """The shipped parameters with a method and changes to the finetune section."""
    params = check.load(projects.ROOT / "params.yaml")
    values = {"epochs": 3, "threads": 1, "warmup_epochs": 0.5, "batch_size": 8} | changes
    section = fitting.Finetune(**(params.sections["finetune"].model_dump() | values))
    module = plugins.load("methods", method)
    whole: Any = check.model().model_validate(check.read(projects.ROOT / "params.yaml"))
    section_of_method = getattr(whole.methods, method).model_copy(
        update=tiny.METHODS.get(method, {})
    )
    fields = vars(params.run) | {
        "method": module,
        "method_name": method,
        "method_params": section_of_method,
    }
    return section, Run(**fields)


def table(rows: int, seed: int = 0) -> pa.Table:
    """Rows whose target is whether token 7 or token 8 occurs; of 3 to 12 tokens."""
    generator = np.random.default_rng(seed)
    ids, targets = [], []
    for number in range(rows):
        tokens = generator.integers(10, 40, generator.integers(3, 13))
        tokens[1] = 7 + number % 2
        ids.append(tokens.tolist())
        targets.append(number % 2)
    return pa.table(
        {
            "input_ids": pa.array(ids, pa.large_list(pa.int32())),
            "target": np.array(targets, np.int32),
        }
    )


def fit(method: str = "full", rows: int = 64, **changes: Any) -> tuple[Any, Any]:
    params, run = sections(method, **changes)
    machine = configure("cpu", "float32", 1)
    return fitting.fit(params, run, machine, LABELS, table(rows), table(16, seed=1))


def test_full_training_learns_the_task() -> None:
    _, best = fit(epochs=10, learning_rate=3e-3)
    assert best.best is not None and best.best[0] == 1.0


def test_parts_of_a_batch_have_the_loss_and_gradient_of_the_whole() -> None:
    from stages.training.module import FineTuning

    configure("cpu", "float32", 1)
    params, run = sections()
    data = table(16)
    found = []
    for parts in (1, 4):
        torch.manual_seed(0)
        model, _ = weights.build(run, LABELS, run.method_params)
        how = fitting.optimization(params, run, 16)
        module = FineTuning(model.eval(), run, LABELS, {"class_weight": [1.0, 3.0]}, how)
        batch = Rows(data, 0, parts)[np.arange(16)]
        assert len(batch) == parts
        total, count, _ = module.losses(batch)
        (total / count).backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((float(total / count), gradients))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-6, rtol=1e-4)


def test_accumulated_batches_equal_one_large_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last step of an epoch has fewer batches and the last batch fewer rows.

    With dropout off, which differs from batch to batch, and by gradients: AdamW makes a step of
    the learning rate's size out of a gradient that is rounding error alone."""
    found: list[list[torch.Tensor]] = []
    clip = torch.nn.utils.clip_grad_norm_

    def note(weights: Any, norm: float) -> Any:
        found[-1].append(torch.cat([w.grad.flatten() for w in weights]))
        return clip(weights, norm)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", note)
    for size, accumulate in ((24, 1), (8, 3)):
        found.append([])
        fit(rows=59, batch_size=size, accumulate=accumulate, epochs=1, dropout=0.0,
            learning_rate=1e-9)  # fmt: skip
    assert [len(of) for of in found] == [3, 3]
    for large, small in zip(*found, strict=True):
        torch.testing.assert_close(small, large, atol=1e-6, rtol=1e-4)


def test_batches_by_tokens_keep_the_budget() -> None:
    """As many in every epoch, none empty or over the budget, and each row once."""
    draw = np.random.default_rng(0)
    for most in (26, 60, 10_000):
        lengths = draw.integers(1, 14, 200)
        sampler = Shuffled(lengths, 1, seed=0, tokens=most)
        by_length = ByLength(lengths, 1, tokens=most)
        for batches in ([*sampler], [*by_length]):
            assert len(batches) == len(sampler) == len(by_length)
            assert sorted(np.concatenate(batches)) == list(range(200))
            assert all(0 < lengths[rows].sum() <= most for rows in batches)
    assert len(sampler) == 1
    even = Shuffled(np.full(30, 5), 1, seed=0, tokens=24)
    assert {len(rows) for rows in even} == {4, 3} and len(even) == 8
    long_last = Shuffled(np.array([1, 1, 1, 13]), 1, seed=0, tokens=26)
    assert [len(long_last), len([*long_last])] == [2, 2]


def test_training_by_tokens_says_what_is_too_little() -> None:
    module, best = fit(epochs=1, batch_tokens=100)
    assert best.curve[0]["step"] == module.how.steps > 1
    with pytest.raises(UserError, match=r"batch_tokens: the longest row has 12 tokens, got 20; wr"):
        fit(epochs=1, batch_tokens=20)


def test_every_row_once_an_epoch_in_an_order_of_its_own() -> None:
    sampler = Shuffled(np.full(10, 3), batch_size=4, seed=0)
    first = [batch.tolist() for batch in sampler]
    assert [len(batch) for batch in first] == [4, 4, 2] and len(sampler) == 3
    assert sorted(row for batch in first for row in batch) == list(range(10))
    assert [batch.tolist() for batch in sampler] == first
    sampler.set_epoch(1)
    assert [batch.tolist() for batch in sampler] != first


def test_prediction_is_in_the_order_of_the_rows() -> None:
    _, run = sections()
    model: Any = weights.build(run, LABELS, run.method_params)[0].eval()
    data = table(11)
    together = predict(model, data, 4, "cpu")
    alone = np.concatenate([predict(model, data.slice(i, 1), 1, "cpu") for i in range(11)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    lengths = np.array([3, 1, 2])
    assert [batch.tolist() for batch in ByLength(lengths, 2)] == [[1, 2], [0]]


def test_learning_rate_rises_and_decays() -> None:
    def rates(schedule: Any) -> list[float]:
        how = Optimization(1.0, 0.0, warmup_steps=2, steps=6, schedule=schedule, seed=0)
        return [round(how.rate(step), 4) for step in range(7)]

    assert rates("linear") == [0.3333, 0.6667, 1.0, 0.75, 0.5, 0.25, 0.0]
    assert rates("cosine") == [0.3333, 0.6667, 1.0, 0.8536, 0.5, 0.1464, 0.0]
    assert rates("constant") == [0.3333, 0.6667, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert steps_per_epoch(batches=3, accumulate=2) == 2


def test_no_decay_on_biases_and_norms() -> None:
    module, _ = fit(epochs=1)
    groups = module.configure_optimizers()["optimizer"].param_groups
    names = {id(p): name for name, p in module.model.named_parameters()}
    kept = {names[id(p)] for p in groups[1]["params"]}
    assert groups[1]["weight_decay"] == 0 and groups[0]["weight_decay"] > 0
    assert all("bias" in name or "LayerNorm" in name for name in kept)
    assert not any("bias" in names[id(p)] for p in groups[0]["params"])


def test_early_stopping_keeps_the_best_epoch() -> None:
    _, best = fit(epochs=30, learning_rate=3e-3, early_stopping=2)
    assert len(best.curve) < 30
    values = [(row["validation_accuracy"], -row["validation_loss"]) for row in best.curve]
    assert best.best == max(values)
    assert best.epoch == values.index(max(values)) + 1


def test_a_method_brings_its_learning_rate() -> None:
    params, run = sections("lora")
    assert fitting.optimization(params, run, 64).learning_rate == run.method_params.learning_rate
    params, run = sections("full")
    assert fitting.optimization(params, run, 64).learning_rate == params.learning_rate


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=r"finetune.device: torch finds no GPU"):
        configure("cuda")


def test_dropout_is_on_in_training_and_off_in_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the base's config has it (0.1), or at the rate of finetune.dropout."""
    seen: list[tuple[bool, bool, float]] = []

    def losses(self: Any, batch: Any) -> Any:
        layers = [m for m in self.model.modules() if isinstance(m, torch.nn.Dropout)]
        seen.extend((torch.is_grad_enabled(), layer.training, layer.p) for layer in layers)
        return losses_of(self, batch)

    losses_of = FineTuning.losses
    monkeypatch.setattr(FineTuning, "losses", losses)
    for dropout, rate in ((None, 0.1), (0.25, 0.25)):
        seen.clear()
        fit(rows=8, epochs=2, dropout=dropout)
        assert set(seen) == {(True, True, rate), (False, False, rate)}


def test_dropout_shapes_the_weights() -> None:
    first, second = fit(dropout=0.0)[1].weights, fit(dropout=0.2)[1].weights
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", ["head_only", "freeze"])
def test_training_on_what_frozen_layers_made_is_training(method: str) -> None:
    """With their output kept, and with it computed anew in each step."""
    kept, computed = (fit(method, keep_frozen=keep, dropout=0.1) for keep in (True, False))
    assert kept[0].trunk and not computed[0].trunk
    for name, weight in computed[1].weights.items():
        torch.testing.assert_close(kept[1].weights[name], weight, atol=1e-4, rtol=1e-3)
