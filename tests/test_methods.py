"""What holds of every method, and what each owes to its paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stages import check, plugins
from stages.errors import UserError
from stages.params import Run
from stages.training import fitting, weights
from stages.training.batching import GRAIN
from stages.training.machine import Machine, configure
from stages.training.predicting import predict
from stages.training.schedule import Optimization
from tests import tiny
from tests.test_training import LABELS, METHODS, sections, table

MACHINE = Machine("cpu", "float32", 1, "any")
FIT: Any = {"epochs": 3, "learning_rate": 3e-3}  # where the method brings none of its own
LAYER_0, LAYER_1 = "encoder.layer.0.", "encoder.layer.1."


def head(name: str) -> bool:
    return "classifier." in name or "pooler." in name


OWN: dict[str, Callable[[str], bool]] = {
    "adapter": lambda name: (
        "classifier." in name
        or ".adapter." in name
        or ("LayerNorm" in name and "embeddings" not in name)
    ),
    "bitfit": lambda name: "classifier." in name or name.endswith("bias"),
    "few_shot": lambda name: name.startswith("head."),
    "freeze": lambda name: head(name) or LAYER_1 in name,
    "from_scratch": lambda name: True,
    "full": lambda name: True,
    "head_only": lambda name: "classifier." in name,
    "ia3": lambda name: "classifier." in name or "ia3_" in name,
    "lora": lambda name: "classifier." in name or "lora_" in name,
    "prefix": lambda name: "classifier." in name or name == "bert.prefix",
    "prompt": lambda name: "classifier." in name or name == "bert.prompt",
    "word_vectors": lambda name: True,
}
"""The names of the weights that a method trains."""


VARIANTS: dict[str, tuple[str, dict[str, Any], Callable[[str], bool]]] = {
    "adapter, Pfeiffer": (
        "adapter",
        {"kind": "pfeiffer"},
        lambda name: "classifier." in name or ".adapter." in name,
    ),
    "few_shot, class means": ("few_shot", {"classifier": "class_means"}, OWN["few_shot"]),
    "few_shot, contrastive": (
        "few_shot",
        {"contrastive": True},
        lambda name: "pooler" not in name,
    ),
    "full, layer decay": ("full", {"layer_decay": 0.9}, OWN["full"]),
    "full, gradual": ("full", {"gradual_unfreeze": 2}, OWN["full"]),
    "lora, DoRA": ("lora", {"dora": True}, OWN["lora"]),
    "lora, rank-stabilized": ("lora", {"rank_stabilized": True}, OWN["lora"]),
}
"""Options of a method that train other weights or in another way, and what they train."""

WAYS = [*METHODS, *VARIANTS]

PADDED = {"few_shot", "prefix", "prompt", "word_vectors"}
"""The methods for which batches cannot be packed."""


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny base, for the whole file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("methods"))
        tiny.make_base("data/base")
        yield Path()


def of_way(way: str, **changes: Any) -> tuple[fitting.Finetune, Run]:
    method, values, _ = VARIANTS.get(way, (way, {}, None))
    params, run = sections(method, **changes)
    return params, changed(run, **values)


def fit_by(way: str, **changes: Any) -> tuple[Any, Any]:
    params, run = of_way(way, **changes)
    machine = configure("cpu", "float32", 1)
    return fitting.fit(params, run, machine, LABELS, table(64), table(16, seed=1))


@cache
def trained(way: str) -> SimpleNamespace:
    """One short training: weights before and after, and what it gave."""
    params, run = of_way(way)
    torch.manual_seed(params.seed)
    before, _ = weights.build(run, LABELS, run.method_params)
    module, best = fit_by(way, **FIT)
    return SimpleNamespace(
        run=run,
        before={name: p.detach().clone() for name, p in before.named_parameters()},
        module=module,
        best=best,
    )


def changed(run: Run, **values: Any) -> Run:
    return replace(run, method_params=run.method_params.model_copy(update=values))


@pytest.mark.parametrize("way", WAYS)
def test_exactly_the_intended_weights_are_trained(way: str) -> None:
    """And no other; those that are saved are those, and the new head is among them."""
    found = trained(way)
    is_own = VARIANTS[way][2] if way in VARIANTS else OWN[way]
    own = {name for name in found.before if is_own(name)}
    assert set(found.best.weights) == own
    assert any(name.endswith(("classifier.weight", "head.weight")) for name in own)
    after = dict(found.module.model.named_parameters())
    assert after.keys() == found.before.keys()
    same = {name for name, old in found.before.items() if torch.equal(old, after[name])}
    # A key's bias changes no attention; of positions and words, some rows are never used.
    assert same - {name for name in own if name.endswith("key.bias")} == found.before.keys() - own


@pytest.mark.parametrize("way", WAYS)
def test_training_repeats_to_the_bit(way: str) -> None:
    first, second = trained(way).best.weights, fit_by(way, **FIT)[1].weights
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("way", WAYS)
def test_saved_weights_load_to_the_same_bits(way: str, folder: Path) -> None:
    """And to the same logits, merged where that can be; only its own weights are stored."""
    found = trained(way)
    weights.save(found.best.weights, found.run, LABELS, MACHINE)
    module: Any = weights.build(found.run, LABELS, found.run.method_params)[0]
    weights.restore(module, found.best.weights)
    again = weights.trained(module)
    assert all(torch.equal(again[name], w) for name, w in found.best.weights.items())
    expected = predict(module.eval(), table(20, seed=2), 8, "cpu")
    merged = weights.load(found.run)
    if found.run.method.PLAIN:
        assert type(merged).__name__ == "BertForSequenceClassification"
    np.testing.assert_allclose(predict(merged, table(20, seed=2), 8, "cpu"), expected, atol=1e-5)
    stored = (folder / "models/finetuned/model.safetensors").stat().st_size
    size = sum(4 * w.numel() for w in found.best.weights.values())
    assert stored < size + 200 * len(found.best.weights)


@pytest.mark.parametrize("way", WAYS)
def test_loss_falls(way: str) -> None:
    """In each epoch, where nothing is dropped; without steps it is better than chance at once."""
    module, best = fit_by(way, **FIT | {"epochs": 5, "dropout": 0.0})
    losses = [row["train_loss"] for row in best.curve]
    if not module.adapted.steps:
        losses.insert(0, float(np.log(len(LABELS))))
    assert len(losses) > 1 and losses == sorted(set(losses), reverse=True)


@pytest.mark.parametrize("method", METHODS)
def test_batches_are_packed_or_the_method_is_refused_there(method: str) -> None:
    found = trained(method)
    module, batches = found.module, found.best.curve[-1]["step"]
    assert module.packed == (method not in PADDED)
    filled = module.padded - module.tokens
    assert filled < GRAIN * batches if module.packed else filled > 0


@pytest.mark.parametrize("method", METHODS)
def test_the_outcome_states_what_was_trained(method: str) -> None:
    found = trained(method)
    params, _ = sections(method)
    told = fitting.outcome(params, found.run, MACHINE, found.module, found.best, 64)
    assert told["trained_parameters"] == sum(w.numel() for w in found.best.weights.values())
    assert told["stored_bytes"] == 4 * told["trained_parameters"]
    assert 0 < told["trained_parameters"] <= told["parameters_total"]
    memory = told["memory_bytes"]
    assert (memory is None) == (not found.module.adapted.steps)
    if memory:
        sizes = {"gradients": 4, "optimizer": 8}
        parts = {name: each * told["trained_parameters"] for name, each in sizes.items()}
        assert parts.items() <= memory.items() and memory["activations"] > 0
        assert memory["weights"] == 4 * told["parameters_total"]


def test_weights_of_another_base_are_refused() -> None:
    found = trained("lora")
    kept = dict(found.best.weights)
    kept.pop(next(iter(kept)))
    weights.save(kept, found.run, LABELS, MACHINE)
    with pytest.raises(UserError, match="do not fit data/base"):
        weights.load(found.run)


def test_freeze_refuses_more_layers_than_there_are() -> None:
    run = changed(sections("freeze")[1], layers=3)
    with pytest.raises(UserError, match="the base has 2 layers, got 3; write at most 2"):
        weights.build(run, LABELS, run.method_params)


@pytest.mark.parametrize(("method", "room"), [("prompt", 2), ("prefix", 0)])
def test_a_method_that_leaves_too_few_positions_is_refused(method: str, room: int) -> None:
    params, run = sections(method)
    length = tiny.POSITIONS - room
    advice = f"lower methods.{method}.length"
    said = f"of which the method takes {length}, got a row of [0-9]+ tokens; "
    said += f"write at most {room}, or {advice}" if room else advice
    with pytest.raises(UserError, match=f"the base has {tiny.POSITIONS} positions, {said}$"):
        fitting.fit(params, changed(run, length=length), MACHINE, LABELS, table(8), table(8))


def test_from_scratch_keeps_nothing_of_the_base() -> None:
    run = sections("full")[1]
    torch.manual_seed(0)
    base = dict(weights.build(run, LABELS, run.method_params)[0].named_parameters())
    drawn = {n: w for n, w in trained("from_scratch").before.items() if n.endswith("weight")}
    kept = [name for name, w in drawn.items() if torch.equal(w, base[name])]
    assert all("LayerNorm" in name for name in kept)
    word = drawn["bert.embeddings.word_embeddings.weight"]
    assert abs(float(word.std()) - 0.02) < 0.002, "as the authors of BERT drew it"


def groups(run: Run) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each trained weight, at 1.0 and 0.01."""
    from stages.training.module import FineTuning

    model, adapted = weights.build(run, LABELS, run.method_params)
    how = Optimization(1.0, 0.01, 0, 10, "constant", 0)
    optimizer = FineTuning(model, run, LABELS, {}, how, adapted).configure_optimizers()["optimizer"]
    names = {id(p): name for name, p in model.named_parameters()}
    assert optimizer.param_groups[0]["lr"] == 1.0, "which the learning curve shows"
    return {
        names[id(p)]: (round(group["lr"], 6), group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


def test_layer_decay_gives_each_layer_its_rate() -> None:
    """Two layers: head 1, upper layer 0.5, lower 0.25, embeddings 0.125."""
    found = groups(changed(sections("full")[1], layer_decay=0.5))
    expected = {
        "classifier.": 1.0, "bert.pooler.": 1.0, f"bert.{LAYER_1}": 0.5, f"bert.{LAYER_0}": 0.25,
        "bert.embeddings.": 0.125,
    }  # fmt: skip
    for name, (rate, decay) in found.items():
        (due,) = {value for prefix, value in expected.items() if name.startswith(prefix)}
        assert rate == due, name
        assert (decay == 0) == (name.endswith("bias") or "LayerNorm" in name), name
    assert len(found) == len(list(trained("full").before))


def test_gradual_unfreezing_follows_its_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head in epoch 1, the upper layer from 2 on, the lower from 3, embeddings from 4; what
    has not joined costs no gradient."""
    from stages.training.module import FineTuning

    due = [{"classifier", "pooler"}, {"layer.1"}, {"layer.0"}, {"embeddings"}]
    seen: dict[int, set[str]] = {}

    def look(self: Any, *_: Any) -> None:
        for name, weight in self.model.named_parameters():
            part = next(part for parts in due for part in parts if part in name)
            if weight.grad is not None:
                seen.setdefault(self.current_epoch, set()).add(part)

    monkeypatch.setattr(FineTuning, "on_before_optimizer_step", look)
    run = changed(sections("full")[1], gradual_unfreeze=1)
    params = sections("full", epochs=5)[0]
    fitting.fit(params, run, MACHINE, LABELS, table(16), table(8, seed=1))
    assert seen == {epoch: set().union(*due[: epoch + 1]) for epoch in range(5)}


def test_unknown_lora_targets_are_refused() -> None:
    run = changed(sections("lora")[1], targets=["qery"])
    with pytest.raises(UserError, match="got 'qery'; did you mean 'query'"):
        weights.build(run, LABELS, run.method_params)


def test_lora_refuses_four_bits_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    run = changed(sections("lora")[1], base_bits=4)
    with pytest.raises(UserError, match="base_bits: needs a GPU and the package bitsandbytes"):
        weights.build(run, LABELS, run.method_params)


def test_lora_refuses_four_bits_of_transposed_layers(tmp_path: Path) -> None:
    """Of GPT-2, GPU or not, and leaves the base as it was."""
    from transformers import GPT2LMHeadModel

    model: Any = GPT2LMHeadModel.from_pretrained(tiny.make_causal(tmp_path))
    before = [name for name, _ in model.named_modules()]
    of = plugins.load("methods", "lora")
    with pytest.raises(UserError, match=r"lora\.base_bits: .* 'gpt2' \(Conv1D.* got 4; write 32"):
        of.apply(model, [], of.Params(base_bits=4))
    assert [name for name, _ in model.named_modules()] == before


@pytest.mark.parametrize("values", [{"rank_stabilized": True, "alpha": 32}, {"dora": True}])
def test_variants_of_lora_merge_to_what_peft_computes(values: dict[str, Any]) -> None:
    run = changed(sections("lora")[1], **values)
    params = sections("lora", epochs=1)[0]
    fitted, best = fitting.fit(params, run, MACHINE, LABELS, table(32), table(8, seed=1))
    module: Any = fitted
    assert any("magnitude" in name for name in best.weights) == ("dora" in values)
    inner = module.model.base_model.model.bert.encoder.layer[0].attention.self.query
    assert inner.scaling["default"] == (32 / 8**0.5 if "alpha" in values else 16 / 8)
    expected = predict(module.model.eval(), table(20, seed=2), 8, "cpu")
    merged = run.method.merge(module.model)
    assert type(merged).__name__ == "BertForSequenceClassification"
    np.testing.assert_allclose(predict(merged, table(20, seed=2), 8, "cpu"), expected, atol=1e-5)


def test_lora_trains_a_layer_whose_name_ends_like_the_heads(tmp_path: Path) -> None:
    """DistilBERT's `pre_classifier`, brought by the base, beside the new `classifier`."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config: Any = DistilBertConfig(vocab_size=64, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    config.num_labels = 3
    model = DistilBertForSequenceClassification(config)
    module = plugins.load("methods", "lora")
    params = sections("lora")[1].method_params
    new = ["classifier.bias", "classifier.weight"]
    adapted = module.apply(model, new, params).module
    names = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert {name for name in names if "lora_" not in name} == {
        f"base_model.model.{name}" for name in new
    }
    assert any("pre_classifier.lora_A" in name for name in names)
    ids = torch.arange(6)[None]
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.add_(0.1 * torch.randn_like(weight))
        expected = adapted.eval()(input_ids=ids).logits
        found = module.merge(adapted)(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_every_method_has_its_paper_in_the_docstring() -> None:
    for method in METHODS:
        text = " ".join((plugins.load("methods", method).__doc__ or "").split())
        assert "arXiv:" in text, method


def test_the_shipped_parameters_hold_a_section_of_every_method() -> None:
    content = check.read(Path(__file__).parent.parent / "params.yaml")
    assert sorted(content["methods"]) == METHODS
