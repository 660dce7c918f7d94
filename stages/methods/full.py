"""Full fine-tuning: every weight is trained (Devlin et al., "BERT", 2019, arXiv:1810.04805).

Two options are from Howard and Ruder, "Universal Language Model Fine-tuning for Text
Classification", 2018, arXiv:1801.06146: layers nearer to the input learn more slowly, and layers
join one after the other, from the head down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from stages.adaptation import Adapted, depths
from stages.params import Section

if TYPE_CHECKING:
    from transformers import PreTrainedModel


LIBRARIES: tuple[str, ...] = ()
PLAIN = True


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="each layer's learning rate, as a share of that of the next"
    )
    gradual_unfreeze: int = Field(
        0, ge=0, description="layers that join with each epoch, after the head; 0: all at once"
    )


def refuses(task: str) -> str | None:
    return None


def apply(model: PreTrainedModel, new: list[str], params: Params) -> Adapted:
    if params.layer_decay == 1 and not params.gradual_unfreeze:
        return Adapted(model)
    depth = depths(model, new)
    below = {name: max(depth.values()) - value for name, value in depth.items()}
    rates = {name: params.layer_decay**steps for name, steps in below.items()}
    joins = {}
    if params.gradual_unfreeze:
        joins = {name: -(-steps // params.gradual_unfreeze) for name, steps in below.items()}
    return Adapted(model, rates=rates, joins=joins)


def merge(module: PreTrainedModel) -> PreTrainedModel:
    return module
