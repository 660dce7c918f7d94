"""The same architecture from random weights, all of them trained: what pre-training is worth
(as He, Girshick and Dollár ask in "Rethinking ImageNet Pre-training", 2018, arXiv:1811.08883)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from stages.adaptation import Adapted
from stages.params import Section

if TYPE_CHECKING:
    from transformers import PreTrainedModel


LIBRARIES: tuple[str, ...] = ()
PLAIN = True


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")
    min_epochs: int | None = Field(
        None, ge=1, description="where finetune.epochs is less; null: that"
    )


def refuses(task: str) -> str | None:
    return None


def apply(model: PreTrainedModel, new: list[str], params: Params) -> Adapted:
    fresh = type(model)(model.config)  # drawn as its authors drew it before pre-training
    model.load_state_dict(fresh.state_dict())
    return Adapted(model)


def merge(module: PreTrainedModel) -> PreTrainedModel:
    return module
