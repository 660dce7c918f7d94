"""The output of frozen layers, kept: the same loss and gradients as computing it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.training import packing
from stages.training import trunk as trunks
from stages.training.batching import Rows
from stages.training.machine import Machine
from stages.training.trunk import Trunk
from tests.test_packing import FAMILIES, losses, model_of, rows

ENCODER = "bert"
MACHINE = Machine("cpu", "float32", 1, "any")


def freeze(model: Any, layers: int) -> None:
    """Embeddings and the lowest layers."""
    from stages.adaptation import depths

    depth = depths(model, [])
    for name, weight in model.named_parameters():
        weight.requires_grad_(depth[name] > layers)


def prepared(family: str, layers: int) -> tuple[Any, Rows, Trunk]:
    model, data = model_of(family), rows(family)
    freeze(model, layers)
    pad = model.config.pad_token_id or 0
    return model, Rows(data, pad, 4, packing.prepare(model)), Trunk(model)


@pytest.mark.parametrize("layers", [1, 2], ids=["one of two layers", "all layers"])
@pytest.mark.parametrize(
    "family",
    ["bert", "distilbert", "electra", "gpt2", "qwen3", "bert, tags", "llama, tags", "gpt2, words"],
)
def test_loss_and_gradients_are_those_of_computing_it(family: str, layers: int) -> None:
    model, data, trunk = prepared(family, layers)
    expected, gradients = losses(model, data)
    assert trunk.fits({"train": data})
    trunk.keep({"train": data}, MACHINE, None)
    model.eval()
    found, others = losses(model, data)
    assert found == pytest.approx(expected, rel=1e-5)
    assert others.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-4, rtol=1e-3)


def test_the_frozen_layers_are_not_computed_again() -> None:
    model, data, trunk = prepared(ENCODER, 1)
    trunk.keep({"train": data}, MACHINE, None)
    calls = []
    for number, layer in enumerate(model.bert.encoder.layer):
        layer.attention.register_forward_hook(lambda *_, number=number: calls.append(number))
    losses(model, data)
    assert calls == [1]


def test_dropout_of_the_trunk_is_off_and_that_of_the_rest_on() -> None:
    model, _, trunk = prepared(ENCODER, 1)
    model.train()
    trunk.calm()
    modes = {
        name: module.training
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Dropout)
    }
    off = {name for name, training in modes.items() if not training}
    assert off == {name for name in modes if "embeddings" in name or "layer.0" in name}


def test_a_model_that_trains_its_embeddings_has_no_trunk() -> None:
    model, data, _ = prepared(ENCODER, 1)
    model.bert.embeddings.LayerNorm.bias.requires_grad_(True)
    assert not Trunk(model).fits({"train": data})


def test_padded_rows_are_left_alone() -> None:
    model, data = model_of("deberta"), rows("deberta")
    freeze(model, 1)
    assert not Trunk(model).fits({"train": Rows(data, 0, 1)})
    assert FAMILIES["deberta"][0] == "padded"


def test_what_memory_should_not_hold_goes_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, held, trunk = prepared(ENCODER, 1)
    trunk.keep({"train": held}, MACHINE, tmp_path)
    assert not list(tmp_path.iterdir())

    monkeypatch.setattr(trunks, "memory", lambda device: (1000, 1000))
    _, filed, trunk = prepared(ENCODER, 1)
    trunk.keep({"train": filed}, MACHINE, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["trunk-0-train.npy"]
    assert held.trunk is not None and filed.trunk is not None
    np.testing.assert_array_equal(filed.trunk, held.trunk)
