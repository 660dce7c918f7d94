"""LoRA: low-rank updates of the linear layers, by peft (Hu et al., "LoRA: Low-Rank
Adaptation of Large Language Models", 2021, arXiv:2106.09685). The head is trained in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from stages.errors import UserError, did_you_mean
from stages.params import Section

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


LIBRARIES = ("peft",)


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")
    rank: int = Field(8, ge=1, description="rank r of each update")
    alpha: int = Field(16, ge=1, description="an update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="names of the linear layers to adapt, without their path"
    )


def refuses(task: str) -> str | None:
    return None


def apply(model: PreTrainedModel, new: list[str], params: Params) -> PeftModel:
    from peft import LoraConfig, get_peft_model
    from torch import nn

    head = sorted({name.rpartition(".")[0] for name in new})
    linear = {
        name: name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name not in head
    }
    if params.targets == "all-linear":
        targets = list(linear)
    else:
        missing = sorted(set(params.targets) - set(linear.values()))
        if missing:
            raise UserError(*(_unknown(name, set(linear.values())) for name in missing))
        targets = [name for name, last in linear.items() if last in params.targets]
    config = LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules=targets,
        modules_to_save=head or None,
    )
    return get_peft_model(model, config)


def _unknown(name: str, known: set[str]) -> str:
    advice = did_you_mean(name, known)
    return f"params.yaml: methods.lora.targets: no such linear layer, got {name!r}; {advice}"


def merge(model: PeftModel) -> PreTrainedModel:
    return model.merge_and_unload()
