"""Packs: the same loss and gradients as padded rows, or a refusal, for each architecture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers

from stages.training import packing
from stages.training.batching import Rows, sizes
from tests.test_training import table

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 32, "vocab_size": 64, "max_position_embeddings": 40}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Bert": ("packed", SMALL | {"pad_token_id": 0}),
    "Roberta": ("packed", SMALL | {"pad_token_id": 1}),
    "DistilBert": ("packed", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 64}),
    "DebertaV2": ("padded", SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "GPT2": ("padded", {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 64, "pad_token_id": 0}),
    "Llama": ("padded", SMALL | {"num_key_value_heads": 2, "pad_token_id": 0}),
    "T5": ("padded", {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 2,
                      "vocab_size": 64, "pad_token_id": 0, "eos_token_id": 1,
                      "decoder_start_token_id": 0}),
}  # fmt: skip


def model_of(family: str) -> Any:
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family][1], num_labels=2)
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config)
    for weight in model.parameters():  # so that biases and norms count as well
        torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def rows(family: str, count: int = 18) -> pa.Table:
    """Rows of 4 to 13 tokens; T5 wants an end in each."""
    data = table(count)
    ends = [[*ids.as_py(), 1 if family == "T5" else 5] for ids in data["input_ids"]]
    return data.set_column(0, "input_ids", pa.array(ends, pa.large_list(pa.int32())))


def losses(model: Any, data: Rows) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss of all rows in one batch, and its gradients."""
    model.zero_grad()
    total = torch.tensor(0.0)
    for part in data[np.arange(len(data))]:
        if "lengths" in part:
            logits = packing.logits(model, part)
        else:
            kinds = ("input_ids", "attention_mask")
            logits = model(**{kind: part[kind] for kind in kinds}, use_cache=False).logits
        total = total + torch.nn.functional.cross_entropy(logits, part["target"], reduction="sum")
    total.backward()
    gradients = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
    return total.item(), gradients


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_padded_rows(family: str) -> None:
    """In float32, without dropout: the loss to 1e-6, gradients to 1e-5, both relative."""
    model, data = model_of(family), rows(family)
    pad = model.config.pad_token_id or 0
    model.set_attn_implementation("eager")
    expected, gradients = losses(model, Rows(data, pad, parts=1))
    first = packing.prepare(model)
    assert ("padded" if first is None else "packed") == FAMILIES[family][0]
    found, others = losses(model, again := Rows(data, pad, 4, first))
    tokens, computed = sizes(again[np.arange(len(again))])
    assert (tokens == computed) == (first is not None)
    assert found == pytest.approx(expected, rel=1e-6)
    assert others.keys() == gradients.keys()
    scale = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("family", [name for name, (how, _) in FAMILIES.items() if how == "packed"])
def test_a_model_for_packs_still_takes_padded_rows(family: str) -> None:
    model, data = model_of(family), rows(family)
    model.set_attn_implementation("eager")
    padded = Rows(data, model.config.pad_token_id, parts=2)
    expected, _ = losses(model, padded)
    packing.prepare(model)
    assert losses(model, padded)[0] == pytest.approx(expected, rel=1e-6)


def test_rows_of_a_pack_do_not_see_one_another() -> None:
    model = model_of("Bert")
    first = packing.prepare(model)
    data = Rows(rows("Bert"), 0, 1, first)
    together = packing.logits(model, data[np.arange(18)][0])
    for number in range(18):
        (alone,) = data[np.array([number])]
        place = int((data[np.arange(18)][0]["row"] == number).nonzero())
        torch.testing.assert_close(packing.logits(model, alone)[0], together[place])


def test_heads_that_read_more_than_the_first_token_are_refused() -> None:
    config = transformers.BertConfig(**SMALL)
    assert packing.prepare(transformers.BertForTokenClassification(config)) is None
