"""The vectors of the tokens that occur, trained in the place of the whole vocabulary's.

A token that no row has gets no gradient, and AdamW does nothing to its vector but let it decay:
after some steps that is one factor, which is known. So gradients, moments, clipping and steps are
for the vectors of tokens that occur, often a tenth of them, and for the others the factor is made
good when weights are taken. The result is that of training all, but for rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from stages.adaptation import Adapted
from stages.training.schedule import Optimization

LEAST_SAVED = 0.5  # of the vectors; else they stay as they are


class Vocabulary:
    """The trained input embeddings of a model, made small for the time of training."""

    def __init__(self, model: nn.Module, adapted: Adapted, tokens: np.ndarray) -> None:
        """
        Args:
            model: whose input embeddings are made small where they are trained, belong to it alone
                (are not those of the output as well), and most of their tokens do not occur.
            adapted: how the method has its weights trained.
            tokens: all that will be looked up.
        """
        self.name: str | None = None  # of the weight, where it is made small
        self._adapted = adapted
        found = _embeddings(model)
        if found is None:
            return
        name, layer = found
        used = np.unique(tokens)
        if len(used) > (1 - LEAST_SAVED) * layer.num_embeddings:
            return
        self.name, self._layer, self._whole = name, layer, layer.weight
        self._used = torch.from_numpy(used)
        places = torch.zeros(layer.num_embeddings, dtype=torch.long)
        places[self._used] = torch.arange(len(used))
        layer.register_buffer("places", places, persistent=False)
        layer.weight = nn.Parameter(layer.weight.detach()[self._used].clone())
        pad = layer.padding_idx
        padding = int(places[pad]) if pad is not None and pad in used else None

        def forward(ids: torch.Tensor) -> torch.Tensor:
            own: Any = layer  # whose buffer goes where the model goes
            return nn.functional.embedding(own.places[ids], layer.weight, padding)

        layer.forward = forward  # type: ignore[method-assign,assignment]

    def whole(
        self, weights: dict[str, torch.Tensor], how: Optimization, step: int, per_epoch: int
    ) -> dict[str, torch.Tensor]:
        """Trained weights by name, with the vectors of all tokens.

        Args:
            step: optimizer steps that were taken.
            per_epoch: steps of an epoch.
        """
        if self.name is None:
            return weights
        found = self._whole.detach() * self._decay(how, step, per_epoch)
        found[self._used] = weights[self.name]
        return weights | {self.name: found}

    def _decay(self, how: Optimization, step: int, per_epoch: int) -> float:
        """What AdamW's decay leaves of a weight without gradients (Loshchilov and Hutter, 2019)."""
        assert self.name is not None
        if self.name in self._adapted.undecayed:
            return 1.0
        rate = how.learning_rate * self._adapted.rates.get(self.name, 1.0) * how.weight_decay
        first = self._adapted.joins.get(self.name, 0) * per_epoch
        return float(np.prod([1.0 - rate * how.rate(number) for number in range(first, step)]))

    def undo(self) -> None:
        """Put the whole back, with the vectors that it had at first."""
        if self.name is not None:
            self._layer.weight = self._whole
            del self._layer.forward, self._layer.places


def _embeddings(model: Any) -> tuple[str, nn.Embedding] | None:
    """Name of the weight and layer of trained input embeddings that nothing else shares."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    try:
        layer = plain.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    if not isinstance(layer, nn.Embedding) or layer.max_norm is not None or layer.sparse:
        return None
    if not layer.weight.requires_grad:
        return None
    owners = [
        module
        for module in model.modules()
        if any(weight is layer.weight for weight in module.parameters(recurse=False))
    ]
    if owners != [layer]:
        return None
    return next((name, layer) for name, p in model.named_parameters() if p is layer.weight)
