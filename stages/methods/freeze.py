"""Embeddings and the lowest layers stay as they came, the rest is trained (Lee, Tang and Lin,
"What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning", 2019, arXiv:1911.03090)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from stages.adaptation import Adapted, blocks, depths, train_only
from stages.errors import UserError
from stages.params import Section

if TYPE_CHECKING:
    from transformers import PreTrainedModel


LIBRARIES: tuple[str, ...] = ()
PLAIN = True


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")
    layers: int = Field(ge=0, description="how many, from the lowest; 0: embeddings alone")


def refuses(task: str) -> str | None:
    return None


def apply(model: PreTrainedModel, new: list[str], params: Params) -> Adapted:
    """
    Raises:
        UserError: the base has fewer layers.
    """
    count = len(blocks(model)[1])
    if params.layers > count:
        raise UserError(
            f"params.yaml: methods.freeze.layers: the base has {count} layers, got "
            f"{params.layers}; write at most {count}"
        )
    depth = depths(model, new)
    train_only(model, [name for name in depth if depth[name] > params.layers])
    return Adapted(model)


def merge(module: PreTrainedModel) -> PreTrainedModel:
    return module
