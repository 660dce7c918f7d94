"""IA3: keys, values and the inner activations of each layer are scaled by trained vectors, by peft
(Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", 2022, arXiv:2205.05638). The head is trained in full.

Where one layer gives queries, keys and values, as in GPT-2, its queries are scaled as well, as peft
does.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages.adaptation import Adapted, blocks
from stages.errors import UnsuitedError
from stages.params import Section

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel


LIBRARIES = ("peft",)
PLAIN = True
KEYS_AND_VALUES = {"key", "value", "k_lin", "v_lin", "k_proj", "v_proj", "k", "v"}
FUSED = {"c_attn"}  # of GPT-2, for queries too


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")


def refuses(task: str) -> str | None:
    return None


def apply(model: PreTrainedModel, new: list[str], params: Params) -> Adapted:
    """
    Raises:
        UnsuitedError: the base has no layers of its own for keys and values.
    """
    from peft import IA3Config, get_peft_model
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    path, layers = blocks(model)
    linear = {
        f"{path}.{name}": module
        for name, module in layers.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    attention = [name for name in linear if name.rpartition(".")[2] in KEYS_AND_VALUES | FUSED]
    if not attention:
        raise UnsuitedError(
            f"a base of the kind {model.config.model_type!r} has no linear layers for keys and "
            "values",
            "write lora or bitfit",
            "ia3",
        )
    # Of a layer's linear maps only those back from the inner activations narrow.
    inner = [name for name, module in linear.items() if _narrows(module)]
    config = IA3Config(
        target_modules=_any([*attention, *inner]),
        feedforward_modules=_any(inner),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in linear.values()),
    )
    adapted = get_peft_model(model, config)
    for name in new:
        model.get_parameter(name).requires_grad_(True)
    vectors = {name for name, _ in adapted.named_parameters() if "ia3_" in name}
    return Adapted(adapted, undecayed=frozenset(vectors))  # decay would draw factors to 0


def _narrows(module: nn.Module) -> bool:
    weight: Any = module.weight
    size, out = weight.shape if hasattr(module, "nf") else weight.shape[::-1]  # GPT-2's: [in, out]
    return bool(size > out)


def _any(names: list[str]) -> str:
    """A pattern for whole names: of a list, peft would take every layer that ends like one."""
    return "|".join(map(re.escape, names))


def merge(module: PeftModel) -> PreTrainedModel:
    return module.merge_and_unload()
