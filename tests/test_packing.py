"""Packs: the same loss and gradients as padded rows, or a refusal, for each architecture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers

from stages.training import packing
from stages.training.batching import GRAIN, Rows, sizes
from stages.training.predicting import padded, predict
from tests.test_training import table

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 32, "vocab_size": 64, "max_position_embeddings": 40}  # fmt: skip
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 64, "pad_token_id": 0}
CAUSAL = SMALL | {"num_key_value_heads": 1, "pad_token_id": 0}
# What becomes of a batch, the class of the model, and its configuration.
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("packed", "BertForSequenceClassification", SMALL | {"pad_token_id": 0}),
    "roberta": ("packed", "RobertaForSequenceClassification", SMALL | {"pad_token_id": 1}),
    "xlm-roberta": ("packed", "XLMRobertaForSequenceClassification", SMALL | {"pad_token_id": 1}),
    "electra": ("packed", "ElectraForSequenceClassification", SMALL | {"embedding_size": 8}),
    "distilbert": ("packed", "DistilBertForSequenceClassification",
                   {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 64}),
    "gpt2": ("packed", "GPT2ForSequenceClassification", GPT2),
    "llama": ("packed", "LlamaForSequenceClassification", CAUSAL),
    "mistral": ("packed", "MistralForSequenceClassification", CAUSAL | {"sliding_window": None}),
    "qwen2": ("packed", "Qwen2ForSequenceClassification", CAUSAL),
    "qwen3": ("packed", "Qwen3ForSequenceClassification", CAUSAL | {"head_dim": 8}),
    "bert, tags": ("packed", "BertForTokenClassification", SMALL),
    "bert, words": ("packed", "BertForMaskedLM", SMALL),
    "distilbert, tags": ("packed", "DistilBertForTokenClassification",
                         {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 64}),
    "gpt2, words": ("packed", "GPT2LMHeadModel", GPT2),
    "llama, words": ("packed", "LlamaForCausalLM", CAUSAL),
    "llama, tags": ("packed", "LlamaForTokenClassification", CAUSAL),
    "mistral with a window": ("padded", "MistralForSequenceClassification", CAUSAL | {"sliding_window": 4}),
    "deberta": ("padded", "DebertaV2ForSequenceClassification",
                SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "t5": ("padded", "T5ForSequenceClassification",
           {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 2, "vocab_size": 64,
            "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}),
}  # fmt: skip
PACKED = [name for name, (how, *_) in FAMILIES.items() if how == "packed"]


def model_of(family: str) -> Any:
    _, name, values = FAMILIES[family]
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    model = kind(kind.config_class(**values, num_labels=2))
    for weight in model.parameters():  # so that biases and norms count as well
        torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def rows(family: str, count: int = 18) -> pa.Table:
    """Rows of 4 to 13 tokens; T5 wants an end in each."""
    data = table(count)
    ends = [[*ids.as_py(), 1 if family == "t5" else 5] for ids in data["input_ids"]]
    return data.set_column(0, "input_ids", pa.array(ends, pa.large_list(pa.int32())))


def losses(model: Any, data: Rows) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss of all rows in one batch, and its gradients; on tokens each answers for itself."""
    model.zero_grad()
    total = torch.tensor(0.0)
    for part in data[np.arange(len(data))]:
        compute = packing.logits if "lengths" in part else padded
        logits = compute(model, part)
        assert logits.ndim == 2
        target = part["target"]
        if len(logits) != len(target):
            mask = part.get("attention_mask", torch.ones_like(part["input_ids"])).bool()
            target = (part["input_ids"][mask][: len(logits)] * 7) % 2
        total = total + torch.nn.functional.cross_entropy(logits, target, reduction="sum")
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
    assert (computed == -(-tokens // GRAIN) * GRAIN) == (first is not None)
    assert found == pytest.approx(expected, rel=1e-6)
    assert others.keys() == gradients.keys()
    scale = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("family", PACKED)
def test_a_model_for_packs_still_takes_padded_rows(family: str) -> None:
    model, data = model_of(family), rows(family)
    model.set_attn_implementation("eager")
    filled = Rows(data, model.config.pad_token_id or 0, parts=2)
    expected, _ = losses(model, filled)
    packing.prepare(model)
    assert losses(model, filled)[0] == pytest.approx(expected, rel=1e-6)


def test_rows_of_a_pack_do_not_see_one_another() -> None:
    model = model_of("bert")
    first = packing.prepare(model)
    data = Rows(rows("bert"), 0, 1, first)
    together = packing.logits(model, data[np.arange(18)][0])
    for number in range(18):
        (alone,) = data[np.array([number])]
        place = int((data[np.arange(18)][0]["row"] == number).nonzero())
        torch.testing.assert_close(packing.logits(model, alone)[0], together[place])


def test_heads_that_are_not_known_are_refused() -> None:
    config = transformers.BertConfig(**SMALL)
    model = transformers.BertForMultipleChoice(config)
    before = model.config._attn_implementation
    assert packing.prepare(model) is None
    assert model.config._attn_implementation == before


def test_a_model_is_made_ready_once() -> None:
    model, data = model_of("bert"), rows("bert")
    first = packing.prepare(model)
    expected = losses(model, Rows(data, 0, 1, first))[0]
    assert packing.prepare(model) == first
    assert losses(model, Rows(data, 0, 1, first))[0] == expected


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_kernels_of_gpus_compute_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = model_of(family), rows(family)
    packs = Rows(data, 0, 1, packing.prepare(model))
    expected, gradients = losses(model, packs)
    monkeypatch.setattr(packing, "_products", packing._fused)
    found, others = losses(model, packs)
    assert found == pytest.approx(expected, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bert", "bert, tags", "gpt2", "deberta"])
def test_predictions_come_in_the_order_of_the_table(family: str) -> None:
    """Of packs as of each row alone."""
    model, data = model_of(family), rows(family)
    alone = [padded(model, Rows(data, 0, 1)[np.array([n])][0]) for n in range(len(data))]
    with torch.no_grad():
        found = predict(model, data, 5, "cpu")
    np.testing.assert_allclose(found, torch.cat(alone).detach().numpy(), atol=1e-5)
