"""From tokenized rows to batches: order, groups of like length, padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds
import torch
from torch.utils.data import Dataset, Sampler

from stages import artifacts
from stages.training.ranks import ALONE, Ranks

Batch = list[dict[str, torch.Tensor]]
"""The parts of a batch, none for a rank without a share of it. Each has the index `row` of each of
its rows in their table [n], and the table's other numbers by column: `target`, [n] or [n, k], and
what else the task wants, [n], [n, k], or for each token [tokens].
Padded parts have input_ids and attention_mask [n, length]; a pack, which is the only part, has
input_ids and position_ids [1, computed] and lengths [n], rising, the sum of which is `tokens`, and
where it is kept `trunk` (see `stages.training.trunk`), [tokens, hidden] or [n, hidden]. Either has
token_type_ids of the shape of input_ids where the model tells two texts apart."""

GRAIN = 16
"""A pack computes a multiple of so many tokens; those after its rows count for nothing. oneDNN
compiles products for each shape anew and keeps them, so that fewer shapes take less memory, and
even ones are faster."""

INPUTS = ("input_ids", "attention_mask", "position_ids", "token_type_ids")
"""Those keys that are the model's own."""


class Rows(Dataset[Batch]):
    """The rows of a tokenized table; an index is the array of the rows of one batch."""

    def __init__(
        self,
        table: pa.Table,
        pad_id: int,
        parts: int,
        first_position: int | None = None,
        typed: bool = False,
    ) -> None:
        """
        Args:
            table: columns input_ids (list of integers), of pairs `first`, and the task's.
            pad_id: token that fills short rows; masked, so its value shapes nothing.
            parts: a batch is padded in at most so many parts of like length. The sum of their
                losses is the loss of the batch, without most of its padding.
            first_position: of a row, for a model that takes packs; None: batches are padded.
            typed: the model tells two texts apart by the type of their tokens; see `is_typed`.
        """
        self.table = table
        column = table["input_ids"].combine_chunks()
        self.tokens = column.values.to_numpy(zero_copy_only=False)
        self.offsets = column.offsets.to_numpy()
        self.lengths = np.diff(self.offsets)
        self.columns, self.of_tokens = _numbers(table, self.offsets)
        self.first = table["first"].to_numpy() if typed and "first" in table.column_names else None
        self.pad_id = pad_id
        self.parts = parts
        self.first_position = first_position
        self.trunk: np.ndarray | None = None  # what frozen layers make of the tokens or the rows
        self.trunk_of_rows = False

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: np.ndarray) -> Batch:
        if len(rows) == 0:
            return []
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
            **self._types(
                rows, lambda first: torch.from_numpy(np.arange(mask.shape[1]) >= first[:, None])
            ),
            **self._numbers(rows),
        }

    def _pack(self, rows: np.ndarray, first_position: int) -> dict[str, torch.Tensor]:
        lengths = self.lengths[rows].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        ids = self._joined(rows).astype(np.int64)
        places = np.arange(len(ids))
        positions = places - np.repeat(starts, lengths) + first_position
        return {
            "input_ids": _filled(ids, ids[0]),  # one that occurs, so that no other is looked up
            "position_ids": _filled(positions, first_position),
            "lengths": torch.from_numpy(lengths),
            **self._types(
                rows, lambda first: _filled(places >= np.repeat(starts + first, lengths), False)
            ),
            **self._trunk(rows),
            **self._numbers(rows),
        }

    def _trunk(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        if self.trunk is None:
            return {}
        kept = self.trunk[rows if self.trunk_of_rows else self.places(rows)]
        return {"trunk": torch.from_numpy(kept)}

    def _joined(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([self.tokens[self.offsets[r] : self.offsets[r + 1]] for r in rows])

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where the tokens of rows are among those of all, [tokens]."""
        return np.concatenate([np.arange(self.offsets[r], self.offsets[r + 1]) for r in rows])

    def _types(
        self, rows: np.ndarray, is_second: Callable[[np.ndarray], torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        if self.first is None:
            return {}
        return {"token_type_ids": is_second(self.first[rows]).long()}

    def _numbers(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        found = {name: values[rows] for name, values in self.columns.items()}
        for name, values in self.of_tokens.items():
            parts = [values[self.offsets[r] : self.offsets[r + 1]] for r in rows]
            found[name] = np.concatenate(parts)
        found["row"] = rows
        return {
            name: torch.from_numpy(
                values.astype(np.float32 if values.dtype.kind == "f" else np.int64)
            )
            for name, values in found.items()
        }


def _filled(values: np.ndarray, filler: int) -> torch.Tensor:
    """The values of a pack's tokens, [1, computed]."""
    return torch.from_numpy(np.pad(values, (0, -len(values) % GRAIN), constant_values=filler))[None]


def _numbers(
    table: pa.Table, offsets: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The columns of numbers that are no tokens: those with one or a few an example, and those
    with one a token."""
    columns, of_tokens = {}, {}
    for name in table.column_names:
        kind = table[name].type
        if name in ("input_ids", "first", "row"):
            continue
        if kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_fixed_size_list(kind):
            columns[name] = artifacts.numbers(table[name])
        elif kinds.is_list(kind) or kinds.is_large_list(kind):
            lists = table[name].combine_chunks()
            if np.array_equal(lists.offsets.to_numpy(), offsets):
                of_tokens[name] = lists.values.to_numpy(zero_copy_only=False)
    return columns, of_tokens


def is_typed(config: Any) -> bool:
    """Does a model of this configuration learn the two texts of a pair apart?"""
    return getattr(config, "type_vocab_size", 0) > 1


def targets(table: pa.Table) -> np.ndarray:
    """Targets [rows] or [rows, k] of a table of examples: of each row's first example."""
    values = artifacts.numbers(table["target"])
    return values[firsts(table)] if "row" in table.column_names else values


def firsts(table: pa.Table) -> np.ndarray:
    """Which examples are the first of their row, [rows]; all where rows have one each."""
    if "row" not in table.column_names:
        return np.arange(len(table))
    row = table["row"].to_numpy()
    return np.flatnonzero(np.diff(row, prepend=-1))


def in_order(table_offsets: np.ndarray, rows: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Logits of rows in any order as the table has them.

    Args:
        table_offsets: where each row's tokens begin, [n + 1].
        rows: of the table, each once, [n].
        logits: [n, k] in the order of `rows`, or [tokens, k] of their tokens.
    """
    result = np.empty_like(logits)
    if len(logits) == len(rows):
        result[rows] = logits
        return result
    places = [np.arange(table_offsets[row], table_offsets[row + 1]) for row in rows]
    result[np.concatenate(places)] = logits
    return result


def sizes(batch: Batch) -> tuple[int, int]:
    """Tokens of a batch, and tokens that are computed for it, padding included."""
    kinds = ("lengths" if "lengths" in part else "attention_mask" for part in batch)
    tokens = sum(int(part[kind].sum()) for part, kind in zip(batch, kinds, strict=True))
    return tokens, sum(part["input_ids"].numel() for part in batch)


def count(lengths: np.ndarray, batch_size: int, tokens: int | None) -> int:
    """Batches of rows, in whatever order.

    Args:
        tokens: of a batch at most, in the place of batch_size rows.
    """
    if tokens is None:
        return -(-len(lengths) // batch_size)
    return _batches_by_tokens(lengths, tokens)


def _cut_by_tokens(lengths: np.ndarray, most: int) -> list[np.ndarray]:
    """Cut rows into batches of at most `most` tokens, which are as many, and about as many tokens
    each, however the rows are ordered.

    Args:
        lengths: tokens of each row [n] in their order, at most `(most + 1) / 2`.

    Returns:
        The places of each batch's rows in that order; no batch is empty.
    """
    ends = np.cumsum(lengths)
    batches = _batches_by_tokens(lengths, most)
    # A batch has the rows that begin in its share of all tokens, so it overshoots that share by
    # less than one row.
    cuts = np.searchsorted(ends - lengths, np.arange(1, batches) * (ends[-1] / batches))
    places = np.arange(1, batches)
    cuts = np.maximum.accumulate(np.maximum(cuts - places, 0)) + places
    cuts = np.minimum(cuts, len(lengths) - batches + places)
    return np.array_split(np.arange(len(lengths)), cuts)


def _batches_by_tokens(lengths: np.ndarray, most: int) -> int:
    """How many batches `_cut_by_tokens` makes; the order of the rows makes no difference."""
    return int(-(-int(lengths.sum()) // (most - int(lengths.max()) + 1)))


@dataclass
class Batches(Sampler[np.ndarray]):
    """Indices of the rows of each batch, [n]."""

    lengths: np.ndarray
    batch_size: int
    tokens: int | None = field(default=None, kw_only=True)  # see `count`
    ranks: Ranks = field(default=ALONE, kw_only=True)  # which share of each batch is drawn

    def __len__(self) -> int:
        return count(self.lengths, self.batch_size, self.tokens)

    def _deal(self, order: np.ndarray, first: int = 0) -> Iterator[np.ndarray]:
        """The share of each batch of rows in this order, from the first that is wanted on."""
        if self.tokens is None:
            batches = np.array_split(order, np.arange(self.batch_size, len(order), self.batch_size))
        else:
            batches = [order[x] for x in _cut_by_tokens(self.lengths[order], self.tokens)]
        return (self.ranks.share(rows, self.lengths) for rows in batches[first:])


@dataclass
class Shuffled(Batches):
    """Batches in random order, a pure function of (seed, epoch); those before `start`, an
    (epoch, batch), are skipped without being made."""

    seed: int
    start: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.epoch = self.start[0]  # Lightning begins to iterate before it sets the epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[np.ndarray]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.lengths))
        return self._deal(order, self.start[1] if self.epoch == self.start[0] else 0)


@dataclass
class ByLength(Batches):
    """Batches of rows of like length: the least padding, for everything but training."""

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._deal(np.argsort(self.lengths, kind="stable"))


def pad_id(config: Any) -> int:
    """The base's padding token, or 0 where it has none."""
    value = getattr(config, "pad_token_id", None)
    return 0 if value is None else int(value)
