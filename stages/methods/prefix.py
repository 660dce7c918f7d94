"""Prefix tuning of every layer: keys and values before those of each row's tokens are trained,
and the head (Li and Liang, "Prefix-Tuning", 2021, arXiv:2101.00190; for encoders Liu et al.,
"P-Tuning v2", 2021, arXiv:2110.07602, whose form without reparametrization this is)."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages.adaptation import Adapted, prepend, put_past, train_only
from stages.errors import UnsuitedError
from stages.params import Section

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


LIBRARIES: tuple[str, ...] = ()
PLAIN = False


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")
    length: int = Field(ge=1, description="positions before each row; they count as tokens")
    deviation: float = Field(gt=0, description="standard deviation of the first values")


def refuses(task: str) -> str | None:
    return None


def apply(model: PreTrainedModel, new: list[str], params: Params) -> Adapted:
    """
    Raises:
        UnsuitedError: the base takes no keys and values from outside.
    """
    import torch
    from torch import nn

    config = model.config
    if "past_key_values" not in inspect.signature(model.base_model.forward).parameters:
        raise UnsuitedError(
            f"a base of the kind {config.model_type!r} takes no keys and values from outside",
            "write prompt or lora",
            "prefix",
        )
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = (config.num_hidden_layers, 2, heads, params.length, size)
    train_only(model, new)
    prefix = nn.Parameter(params.deviation * torch.randn(shape))
    base: Any = model.base_model
    base.register_parameter("prefix", prefix)

    def put(kwargs: dict[str, Any], rows: int) -> None:
        # Not the variable: where weights are shared out, the base has others while it computes.
        put_past(kwargs, ((pair[0][None], pair[1][None]) for pair in base.prefix), rows)

    prepend(model, lambda: params.length, put, "methods.prefix.length")
    return Adapted(
        model,
        undecayed=frozenset(n for n, p in model.named_parameters() if p is prefix),
        cached=True,
    )


def as_peft(model: Any, kind: str) -> tuple[dict[str, Any], torch.Tensor] | None:
    """As stages/exporting/adapters.py wants it: [length, layers * 2 * heads * size]."""
    prefix = model.base_model.prefix
    layers, _, heads, length, size = prefix.shape
    settings = {
        "peft_type": "PREFIX_TUNING",
        "prefix_projection": False,
        "num_virtual_tokens": length,
        "token_dim": heads * size,
        "encoder_hidden_size": heads * size,
        "num_layers": layers,
        "num_attention_heads": heads,
    }
    return settings, prefix.permute(3, 0, 1, 2, 4).reshape(length, -1)


def merge(module: PreTrainedModel) -> PreTrainedModel:
    return module
