"""From tokenized rows to batches: order, groups of like length, padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset, Sampler

Batch = list[dict[str, torch.Tensor]]
"""The parts of a batch; each has input_ids and attention_mask [n, length], target [n] and
row [n], the index of each row in its table."""


class Rows(Dataset[Batch]):
    """The rows of a tokenized table; an index is the array of the rows of one batch."""

    def __init__(self, table: pa.Table, pad_id: int, parts: int) -> None:
        """
        Args:
            table: columns input_ids (list of integers) and target.
            pad_id: token that fills short rows; masked, so its value shapes nothing.
            parts: a batch is padded in at most so many parts of like length. The sum of their
                losses is the loss of the batch, without most of its padding.
        """
        column = table["input_ids"].combine_chunks()
        self.tokens = column.values.to_numpy(zero_copy_only=False)
        self.offsets = column.offsets.to_numpy()
        self.lengths = np.diff(self.offsets)
        self.targets = table["target"].to_numpy()
        self.pad_id = pad_id
        self.parts = parts

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: np.ndarray) -> Batch:
        by_length = rows[np.argsort(self.lengths[rows], kind="stable")]
        parts = max(1, min(self.parts, len(rows) // 4))  # fewer rows would leave cores idle
        return [self._pad(part) for part in np.array_split(by_length, parts)]

    def _pad(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        lengths = self.lengths[rows]
        mask = np.arange(lengths.max())[None, :] < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        ids[mask] = np.concatenate(
            [self.tokens[self.offsets[r] : self.offsets[r + 1]] for r in rows]
        )
        target = self.targets[rows]
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "target": torch.from_numpy(
                target.astype(np.int64 if target.dtype.kind in "iu" else np.float32)
            ),
            "row": torch.from_numpy(rows.astype(np.int64)),
        }


@dataclass
class Shuffled(Sampler[np.ndarray]):
    """Batches in random order, a pure function of (seed, epoch); those before `start`, an
    (epoch, batch), are skipped without being made."""

    rows: int
    batch_size: int
    seed: int
    start: tuple[int, int] = (0, 0)
    epoch: int = 0

    def __post_init__(self) -> None:
        self.epoch = self.start[0]  # Lightning begins to iterate before it sets the epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        batches = np.array_split(order, np.arange(self.batch_size, self.rows, self.batch_size))
        return iter(batches[self.start[1] if self.epoch == self.start[0] else 0 :])


@dataclass
class ByLength(Sampler[np.ndarray]):
    """Batches of rows of like length: the least padding, for everything but training."""

    lengths: np.ndarray
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        order = np.argsort(self.lengths, kind="stable")
        return iter(np.array_split(order, np.arange(self.batch_size, len(order), self.batch_size)))


def pad_id(config: Any) -> int:
    """The base's padding token, or 0 where it has none."""
    value = getattr(config, "pad_token_id", None)
    return 0 if value is None else int(value)
