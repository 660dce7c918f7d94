"""BitFit: only biases and the new head are trained (Ben Zaken, Goldberg and Ravfogel, "BitFit:
Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models", 2021,
arXiv:2106.10199)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from stages.adaptation import Adapted, train_only
from stages.errors import UnsuitedError
from stages.params import Section

if TYPE_CHECKING:
    from transformers import PreTrainedModel


LIBRARIES: tuple[str, ...] = ()
PLAIN = True


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")


def refuses(task: str) -> str | None:
    return None


def apply(model: PreTrainedModel, new: list[str], params: Params) -> Adapted:
    """
    Raises:
        UnsuitedError: the base has no biases.
    """
    biases = [name for name, _ in model.named_parameters() if name.endswith("bias")]
    if not set(biases) - set(new):
        raise UnsuitedError("the base has no biases to train", "write lora or head_only", "bitfit")
    train_only(model, [*biases, *new])
    return Adapted(model)


def merge(module: PreTrainedModel) -> PreTrainedModel:
    return module
