"""The Lightning data module: tokenized splits as batches."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
from torch.utils.data import DataLoader

from stages.training.batching import Batch, Batches, ByLength, Rows, Shuffled
from stages.training.ranks import ALONE, Ranks

WORKERS = 0  # processes; a batch is made in less time than another process takes to hand it over


class Splits(pl.LightningDataModule):
    """Training rows in an order drawn anew for each epoch, validation rows by length."""

    def __init__(
        self, train: pa.Table, validation: pa.Table, *, batch_size: int, seed: int,
        pad_id: int, parts: int, first_position: int | None, typed: bool,
        tokens: int | None = None, pinned: bool = False, ranks: Ranks = ALONE,
    ) -> None:  # fmt: skip
        """
        Args:
            batch_size: rows.
            tokens: of a batch at most, in the place of batch_size rows.
            ranks: whose share of each batch.
            pinned: batches go to memory that a GPU copies from while it computes.
            pad_id, parts, first_position, typed: see `Rows`.
        """
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        self.tokens, self.pinned, self.ranks = tokens, pinned, ranks
        self.start = (0, 0)  # epoch and batch that training begins with
        self.train, self.validation = (
            Rows(table, pad_id, parts, first_position, typed) for table in (train, validation)
        )

    def order(self, start: tuple[int, int] | None = None) -> Shuffled:
        """The batches of training rows; as many in each epoch.

        Args:
            start: epoch and batch to begin with; None: those that training begins with.
        """
        return Shuffled(
            self.train.lengths, self.batch_size, self.seed, start or self.start,
            tokens=self.tokens, ranks=self.ranks,
        )  # fmt: skip

    def vocabulary(self) -> np.ndarray:
        """The tokens of all rows, and that which fills short ones."""
        return np.concatenate([self.train.tokens, self.validation.tokens, [self.train.pad_id]])

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.train, self.order())

    def val_dataloader(self) -> DataLoader[Batch]:
        order = ByLength(
            self.validation.lengths, self.batch_size, tokens=self.tokens, ranks=self.ranks
        )
        return self._loader(self.validation, order)

    def _loader(self, rows: Rows, order: Batches) -> DataLoader[Batch]:
        return DataLoader(
            rows, sampler=order, batch_size=None, num_workers=WORKERS,
            pin_memory=self.pinned,
        )  # fmt: skip
