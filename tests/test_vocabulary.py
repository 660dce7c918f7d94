"""Embeddings of the tokens that occur alone: the same weights as training those of all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from stages.adaptation import Adapted
from stages.training import fitting, vocabulary
from stages.training.machine import configure
from tests import crash
from tests.test_packing import model_of
from tests.test_training import LABELS, sections, table

EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # of finetune, of methods.full
    "as shipped": ({}, {}),
    "accumulated, on a cosine": ({"accumulate": 3, "schedule": "cosine"}, {}),
    "much decay": ({"weight_decay": 0.3}, {}),
    "rates by layer": ({"weight_decay": 0.3}, {"layer_decay": 0.5}),
    "layers that join": ({"weight_decay": 0.3}, {"gradual_unfreeze": 3}),
}


def fit(saved: float, changes: dict[str, Any], method: dict[str, Any]) -> Any:
    """Train in the current folder, the vocabulary made small where that saves such a share."""
    settings = {"learning_rate": 1e-2, "epochs": 4, "dropout": 0.0, "precision": "float32"}
    params, run = sections("full", **settings, **changes)
    run = replace(run, method_params=run.method_params.model_copy(update=method))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "LEAST_SAVED", saved)
        machine = configure("cpu", "float32", 1)
        return fitting.fit(params, run, machine, LABELS, table(40), table(40))


@pytest.mark.parametrize("way", WAYS)
def test_the_weights_are_those_of_training_all(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    crash.make(tmp_path)
    module, best = fit(1.1, *WAYS[way])
    assert module.vocabulary.name is None
    small, found = fit(0.0, *WAYS[way])
    assert small.vocabulary.name == EMBEDDINGS
    assert found.epoch == best.epoch > 1
    assert found.weights.keys() == best.weights.keys()
    for name, weight in best.weights.items():
        torch.testing.assert_close(found.weights[name], weight, atol=1e-5, rtol=1e-4)
    base = load_file(tmp_path / "data/base/model.safetensors")
    (before,) = (base[name] for name in base if name.endswith("word_embeddings.weight"))
    moved = np.abs(found.weights[EMBEDDINGS].numpy() / before - 1).max(axis=1)
    assert 0 < moved[5] < 0.05 < moved[7]  # token 5 never occurs, and decays


def test_only_what_is_trained_and_not_shared_is_made_small() -> None:
    def small(family: str, tokens: int, frozen: bool = False) -> bool:
        model = model_of(family)
        model.get_input_embeddings().weight.requires_grad_(not frozen)
        found = vocabulary.Vocabulary(model, Adapted(model), np.arange(tokens))
        return found.name is not None

    size = model_of("bert").get_input_embeddings().num_embeddings
    assert small("bert", size // 2)
    assert not small("bert", size // 2 + 1)
    assert not small("bert", 2, frozen=True)
    assert not small("gpt2, words", 2)  # its output has the same weights


def test_a_small_vocabulary_looks_up_what_the_whole_does() -> None:
    model = model_of("bert")
    layer = model.get_input_embeddings()
    ids = torch.tensor([[3, 7, 0, 7]])
    before, weight = layer(ids).detach(), layer.weight
    made = vocabulary.Vocabulary(model, Adapted(model), np.array([0, 3, 7]))
    assert layer.weight.shape == (3, weight.shape[1])
    torch.testing.assert_close(layer(ids), before, atol=0, rtol=0)
    layer(ids).sum().backward()
    padding = layer.padding_idx
    if padding is not None:  # which learns nothing
        assert not layer.weight.grad[[0, 3, 7].index(padding)].any()
    made.undo()
    assert layer.weight is weight
    torch.testing.assert_close(layer(ids), before, atol=0, rtol=0)
