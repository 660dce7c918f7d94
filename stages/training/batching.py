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
"""The parts of a batch; each has target [n] and row [n], the index of each row in its table.
Padded parts have input_ids and attention_mask [n, length]; a pack, which is the only part, has
input_ids and position_ids [1, tokens] and lengths [n], rising."""


class Rows(Dataset[Batch]):
    """The rows of a tokenized table; an index is the array of the rows of one batch."""

    def __init__(
        self, table: pa.Table, pad_id: int, parts: int, first_position: int | None = None
    ) -> None:
        """
        Args:
            table: columns input_ids (list of integers) and target.
            pad_id: token that fills short rows; masked, so its value shapes nothing.
            parts: a batch is padded in at most so many parts of like length. The sum of their
                losses is the loss of the batch, without most of its padding.
            first_position: of a row, for a model that takes packs; None: batches are padded.
        """
        column = table["input_ids"].combine_chunks()
        self.tokens = column.values.to_numpy(zero_copy_only=False)
        self.offsets = column.offsets.to_numpy()
        self.lengths = np.diff(self.offsets)
        self.targets = table["target"].to_numpy()
        self.pad_id = pad_id
        self.parts = parts
        self.first_position = first_position

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: np.ndarray) -> Batch:
        by_length = rows[np.argsort(self.lengths[rows], kind="stable")]
        if self.first_position is not None:
            return [self._pack(by_length, self.first_position)]
        parts = max(1, min(self.parts, len(rows) // 4))  # fewer rows would leave cores idle
        return [self._pad(part) for part in np.array_split(by_length, parts)]

    def _pad(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        lengths = self.lengths[rows]
        mask = np.arange(lengths.max())[None, :] < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        ids[mask] = self._joined(rows)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            **self._targets(rows),
        }

    def _pack(self, rows: np.ndarray, first_position: int) -> dict[str, torch.Tensor]:
        lengths = self.lengths[rows].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        positions = np.arange(lengths.sum()) - np.repeat(starts, lengths) + first_position
        return {
            "input_ids": torch.from_numpy(self._joined(rows).astype(np.int64))[None],
            "position_ids": torch.from_numpy(positions)[None],
            "lengths": torch.from_numpy(lengths),
            **self._targets(rows),
        }

    def _joined(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([self.tokens[self.offsets[r] : self.offsets[r + 1]] for r in rows])

    def _targets(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        target = self.targets[rows]
        kind = np.int64 if target.dtype.kind in "iu" else np.float32
        return {
            "target": torch.from_numpy(target.astype(kind)),
            "row": torch.from_numpy(rows.astype(np.int64)),
        }


def sizes(batch: Batch) -> tuple[int, int]:
    """Tokens of a batch, and tokens that are computed for it, padding included."""
    kinds = ("lengths" if "lengths" in part else "attention_mask" for part in batch)
    tokens = sum(int(part[kind].sum()) for part, kind in zip(batch, kinds, strict=True))
    return tokens, sum(part["input_ids"].numel() for part in batch)


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
