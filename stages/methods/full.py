"""Full fine-tuning: every weight is trained (Devlin et al., "BERT", 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from stages.params import Section

if TYPE_CHECKING:
    from transformers import PreTrainedModel


LIBRARIES: tuple[str, ...] = ()


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")


def refuses(task: str) -> str | None:
    return None


def apply(model: PreTrainedModel, new: list[str], params: Params) -> PreTrainedModel:
    return model


def merge(model: PreTrainedModel) -> PreTrainedModel:
    return model
