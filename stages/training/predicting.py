"""Logits of a tokenized table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from stages.training.batching import ByLength, Rows, pad_id

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel


def predict(model: PreTrainedModel, table: pa.Table, batch_size: int, device: str) -> np.ndarray:
    """Logits [n, k] in the order of the table's rows, in float32."""
    rows = Rows(table, pad_id(model.config), parts=1)
    module: torch.nn.Module = model
    module.to(device)
    found: list[np.ndarray] = []
    order: list[np.ndarray] = []
    with torch.inference_mode():
        for indices in ByLength(rows.lengths, batch_size):
            (part,) = rows[indices]
            ids, mask = part["input_ids"].to(device), part["attention_mask"].to(device)
            logits = model(input_ids=ids, attention_mask=mask).logits
            found.append(logits.float().cpu().numpy())
            order.append(part["row"].numpy())
    result = np.empty((len(rows), found[0].shape[1]), dtype=np.float32)
    result[np.concatenate(order)] = np.concatenate(found)
    return result
