"""What a method is: a module with these names, found by `stages.plugins`.

A method decides which weights are trained. Whatever it leaves with `requires_grad` is
trained, saved and loaded; the rest stays the base's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from stages.adaptation import Adapted
    from stages.params import Section


class Method(Protocol):
    """The protocol; `stages/methods/head_only.py` is the model to copy."""

    LIBRARIES: tuple[str, ...]
    """Libraries, beside those of `finetune`, whose version shapes the weights."""
    PLAIN: bool
    """Does `merge` give a plain transformers model? If not, `export` writes the trained weights
    and names their base."""
    Params: type[Section]
    """params.yaml: methods.<name>. A field `learning_rate` overrides `finetune.learning_rate`
    unless it is null; a field `min_epochs`, where there is one, does so where
    `finetune.epochs` is less."""

    def refuses(self, task: str) -> str | None:
        """Why this method cannot be used with a task, or None where it can."""

    def apply(self, model: PreTrainedModel, new: list[str], params: Any) -> Adapted:
        """The module to train: wrapped or not, the right weights frozen.

        Args:
            model: base and head.
            new: names of the parameters that the base did not bring (the head).

        Raises:
            UnsuitedError: the base is of a kind that the method cannot take.
        """

    # A method that peft knows and `merge` cannot make plain may define
    # `as_peft(model, kind) -> (settings, vectors) | None`; see stages/exporting/adapters.py.

    def merge(self, module: nn.Module) -> nn.Module:
        """A model with the trained weights in place, which maps input_ids and attention_mask to
        an object with `logits`."""
