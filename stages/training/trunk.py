"""The frozen lowest layers of a model, the trunk: what they make of a row is always the same.

They run without dropout, so that it is, whatever else the model is. Where batches are packs, it
is computed once and kept, in memory or, where that would take too much of it, in a file that is
mapped into memory; training and validation go on from there. Which of the two shapes no number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stages.adaptation import blocks
from stages.errors import UserError
from stages.training import packing
from stages.training.batching import ByLength, Rows
from stages.training.machine import Machine
from stages.training.memory import memory
from stages.training.ranks import ALONE, Ranks

SHARE = 0.25  # of the memory that is free
BATCH = 64  # rows at a time
FILE = "trunk-{rank}-{split}.npy"


class Trunk:
    """The layers below the first that is trained, and all before them."""

    def __init__(self, model: Any) -> None:
        """
        Args:
            model: as it will be trained, wrapped by peft or not; what is frozen does not require
                a gradient.
        """
        self.whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.layers: list[nn.Module] = []
        self.before: list[nn.Module] = []
        self.all = False  # is every layer frozen?
        try:
            path, layers = blocks(self.whole)
        except (UserError, AttributeError):
            return
        self.before = _before(self.whole, path)
        if getattr(self.whole, "base_model", self.whole)._forward_pre_hooks:
            return  # what comes in is trained
        if any(_is_trained(module) for module in self.before):
            return
        trained = [number for number, layer in enumerate(layers) if _is_trained(layer)]
        self.layers = list(layers[: trained[0] if trained else len(layers)])
        self.all = bool(self.layers) and not trained

    def calm(self) -> None:
        """Switch off its dropout; call it after `train()`, and leave the mode to Lightning."""
        for module in [*self.before, *self.layers] if self.layers else []:
            module.eval()

    def fits(self, splits: dict[str, Rows]) -> bool:
        """Is there anything to keep, and can packs bring it along?"""
        return bool(self.layers) and all(
            rows.first_position is not None for rows in splits.values()
        )

    def keep(
        self, splits: dict[str, Rows], machine: Machine, folder: Path | None, ranks: Ranks = ALONE
    ) -> None:
        """Compute it for all rows, which fit it, and have their packs bring it along.

        Args:
            splits: by name.
            folder: where files go that memory should not hold; None: memory holds them.
            ranks: the process among those that train together; each keeps its own.
        """
        port = packing.Port(self.layers, of_rows=self.all and packing.reads_rows(self.whole))
        self.whole.to(machine.device)
        self.whole.eval()
        free = memory("cpu")[0] * SHARE / ranks.count
        size = self.whole.config.hidden_size * 4
        total = sum(_count(rows, port) * size for rows in splits.values())
        for split, rows in splits.items():
            shape = (_count(rows, port), self.whole.config.hidden_size)
            file = None
            if folder is not None and total > free:
                file = folder / FILE.format(rank=ranks.rank, split=split)
            rows.trunk = _fill(self.whole, port, rows, machine, shape, file)
            rows.trunk_of_rows = port.of_rows
        self.whole.train()
        self.calm()


def _count(rows: Rows, port: packing.Port) -> int:
    return len(rows) if port.of_rows else len(rows.tokens)


def _fill(
    model: Any,
    port: packing.Port,
    rows: Rows,
    machine: Machine,
    shape: tuple[int, int],
    file: Path | None,
) -> np.ndarray:
    """What the trunk makes of all rows, float32, [tokens, hidden] or [rows, hidden]."""
    if file is None:
        kept = np.empty(shape, np.float32)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = np.lib.format.open_memmap(file, "w+", np.float32, shape)
    device, halved = machine.device, machine.precision == "bf16-mixed"
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=halved):
        for indices in ByLength(rows.lengths, BATCH):
            (part,) = rows[indices]
            on_device = {name: values.to(device) for name, values in part.items()}
            found = port.catch(model, on_device).float().cpu().numpy()
            order = part["row"].numpy()
            kept[order if port.of_rows else rows.places(order)] = found
    return kept


def _is_trained(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())


def _before(model: nn.Module, path: str) -> list[nn.Module]:
    """The modules that compute before the list of layers at `path`."""
    found: list[nn.Module] = []
    module = model
    for step in path.split("."):
        for name, child in module.named_children():
            if name == step:
                break
            found.append(child)
        module = getattr(module, step)
    return found
