"""Logits of a tokenized table."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.training import packing
from stages.training.batching import INPUTS, ByLength, Rows, in_order, is_typed, pad_id

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel


Logits = Callable[[Any], torch.Tensor]
"""`stages.tasks.base.Task.logits`."""


def padded(
    model: torch.nn.Module, part: dict[str, torch.Tensor], of: Logits = attrgetter("logits")
) -> torch.Tensor:
    """Logits of a padded part: [n, k], or [tokens, k] of a head on tokens."""
    found = of(model(**{name: part[name] for name in INPUTS if name in part}))
    return found[part["attention_mask"].bool()] if found.ndim == 3 else found


def predict(
    model: PreTrainedModel,
    table: pa.Table,
    batch_size: int,
    device: str,
    task: Any = None,
) -> np.ndarray:
    """Logits [n, k] or [tokens, k] in the order of the table, in float32; of packs, where the
    model takes them, which it is made ready for here.

    Args:
        task: whose `logits`, `arguments` and `kept` these are; None: the model's own logits.
    """
    first_position = packing.prepare(model)
    typed = is_typed(model.config)
    rows = Rows(table, pad_id(model.config), 1, first_position, typed)
    module: torch.nn.Module = model
    module.to(device)
    found: list[np.ndarray] = []
    order: list[np.ndarray] = []
    with torch.inference_mode():
        for indices in ByLength(rows.lengths, batch_size):
            (part,) = rows[indices]
            on_device = {name: values.to(device) for name, values in part.items()}
            logits = _logits(model, on_device, task)
            found.append(logits.float().cpu().numpy())
            order.append(part["row"].numpy())
    return in_order(rows.offsets, np.concatenate(order), np.concatenate(found))


def _logits(model: torch.nn.Module, part: dict[str, torch.Tensor], task: Any) -> torch.Tensor:
    packed = "lengths" in part
    if task is None:
        return packing.logits(model, part) if packed else padded(model, part)
    if packed:
        found = packing.logits(model, part, task.logits, task.arguments(part))
    else:
        found = padded(model, part, task.logits)
    return task.kept(found, part)
