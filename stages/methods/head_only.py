"""Only the new head is trained; the base stays as it came ("linear probing": Alain and Bengio,
"Understanding intermediate layers using linear classifier probes", 2016, arXiv:1610.01644)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from stages.adaptation import Adapted, train_only
from stages.params import Section

if TYPE_CHECKING:
    from transformers import PreTrainedModel


LIBRARIES: tuple[str, ...] = ()
PLAIN = True


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")


def refuses(task: str) -> str | None:
    if task != "generation":
        return None
    return "a causal model brings its head along, so that nothing would be trained"


def apply(model: PreTrainedModel, new: list[str], params: Params) -> Adapted:
    train_only(model, new)
    return Adapted(model)


def merge(module: PreTrainedModel) -> PreTrainedModel:
    return module
