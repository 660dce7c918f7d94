"""Dropout for CPUs: torch draws each number of its mask alone and on one core, which is an
eighth of a step; four from one draw of 64 bits are as random.

Probabilities are rounded to 1/65536.
"""

from __future__ import annotations

import torch
from torch import nn

STEPS = 1 << 16
ATTRIBUTES = ("dropout", "attention_dropout", "activation_dropout")


def dropout(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """Zero each number with probability p and scale the rest (Srivastava et al., 2014); a
    function of torch's global generator, as torch's own is."""
    dropped = round(p * STEPS)
    if not training or dropped == 0:
        return x
    if dropped == STEPS:
        return x * 0.0
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
    kept = bits >= dropped - STEPS // 2
    return x * kept.to(x.dtype).mul_(STEPS / (STEPS - dropped))


class Dropout(nn.Dropout):
    """Takes the place of torch's."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return dropout(input, self.p, self.training)


def replace(model: nn.Module) -> None:
    """Put it in the place of every dropout layer of a model, which stays on the CPU."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                parent._modules[name] = Dropout(child.p).train(child.training)


def set_rate(model: nn.Module, p: float) -> None:
    """The same probability for every dropout of a base and its head, which are given as layers
    (`nn.Dropout`) or, for attention, as a number that a layer hands on."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
        for name in ATTRIBUTES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, p)
