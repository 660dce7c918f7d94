"""LoRA: low-rank updates of the linear layers, by peft (Hu et al., "LoRA: Low-Rank Adaptation of
Large Language Models", 2021, arXiv:2106.09685). The head is trained in full.

Variants: rank-stabilised scaling (Kalajdzievski, 2023, arXiv:2312.03732), DoRA (Liu et al.,
2024, arXiv:2402.09353), and a base in 4 bits (QLoRA, Dettmers et al., 2023, arXiv:2305.14314).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from stages.adaptation import Adapted
from stages.errors import UserError, did_you_mean
from stages.params import Section

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


LIBRARIES = ("peft",)
PLAIN = True


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")
    rank: int = Field(8, ge=1, description="rank r of each update")
    alpha: int = Field(16, ge=1, description="an update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="names of the linear layers to adapt, without their path"
    )
    rank_stabilized: bool = Field(False, description="scale by alpha / sqrt(rank) instead")
    dora: bool = Field(False, description="also train the length of each row of the weights")
    base_bits: Literal[4, 32] = Field(32, description="4: NF4 by bitsandbytes, on a GPU alone")


def refuses(task: str) -> str | None:
    return None


def apply(model: PreTrainedModel, new: list[str], params: Params) -> Adapted:
    """
    Raises:
        UserError: a target is no linear layer of the base, or 4 bits are not to be had.
    """
    from peft import LoraConfig, get_peft_model
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = {name.rpartition(".")[0] for name in new}
    words = model.get_output_embeddings()  # whose weights may be those of the input as well
    linear = {
        name: name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and name not in head and module is not words
    }
    if params.targets == "all-linear":
        targets = list(linear)
    else:
        missing = sorted(set(params.targets) - set(linear.values()))
        if missing:
            raise UserError(*(_unknown(name, set(linear.values())) for name in missing))
        targets = [name for name, last in linear.items() if last in params.targets]
    if params.base_bits == 4:
        transposed = [n for n in targets if isinstance(model.get_submodule(n), Conv1D)]
        if transposed:
            raise UserError(
                "params.yaml: methods.lora.base_bits: bitsandbytes does not know the layers of a "
                f"base of the kind {model.config.model_type!r} (Conv1D, such as {transposed[0]}), "
                "got 4; write 32, or take a base with plain linear layers, such as a Llama"
            )
        _quantize(model, targets)
    config = LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        use_rslora=params.rank_stabilized,
        use_dora=params.dora,
        # A pattern for whole names: of a list, peft would take every layer that ends like one.
        target_modules="|".join(map(re.escape, targets)),
    )
    adapted = get_peft_model(model, config)
    for name in new:
        model.get_parameter(name).requires_grad_(True)
    return Adapted(adapted)


def _unknown(name: str, known: set[str]) -> str:
    advice = did_you_mean(name, known)
    return f"params.yaml: methods.lora.targets: no such linear layer, got {name!r}; {advice}"


def _quantize(model: PreTrainedModel, targets: list[str]) -> None:
    """Put 4-bit layers in the place of the linear layers to adapt, on the GPU."""
    import torch

    try:
        if not torch.cuda.is_available():
            raise ImportError("torch finds no GPU on this machine")
        import bitsandbytes
    except ImportError as error:
        raise UserError(
            "params.yaml: methods.lora.base_bits: needs a GPU and the package bitsandbytes, got "
            f"4 ({error}); write 32, or install it there"
        ) from None
    for name in targets:
        whole = model.get_submodule(name)
        small = bitsandbytes.nn.Linear4bit(
            whole.in_features,
            whole.out_features,
            bias=whole.bias is not None,
            quant_type="nf4",
            compute_dtype=torch.float32,
        )
        weight = bitsandbytes.nn.Params4bit(whole.weight.data, quant_type="nf4")
        small.weight, small.bias = weight, whole.bias
        model.set_submodule(name, small.to("cuda"))


def merge(module: PeftModel) -> PreTrainedModel:
    _dequantize(module)
    return module.merge_and_unload()


def _dequantize(module: PeftModel) -> None:
    """Put plain layers in the place of 4-bit ones, for what is merged into these is plain."""
    from torch import nn

    small = [(n, one) for n, one in module.named_modules() if type(one).__name__ == "Linear4bit"]
    for name, layer in small:
        from bitsandbytes.functional import dequantize_4bit

        whole = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        whole.weight = nn.Parameter(weight.float())
        whole.bias = layer.bias
        module.set_submodule(name, whole)
