"""The Lightning data module: tokenized splits as batches."""

from __future__ import annotations

import lightning.pytorch as pl
import pyarrow as pa
from torch.utils.data import DataLoader

from stages.training.batching import Batch, ByLength, Rows, Shuffled

WORKERS = 0  # processes; a batch is made in less time than another process takes to hand it over


class Splits(pl.LightningDataModule):
    """Training rows in an order drawn anew for each epoch, validation rows by length."""

    def __init__(
        self, train: pa.Table, validation: pa.Table, *, batch_size: int, seed: int,
        pad_id: int, parts: int, first_position: int | None, typed: bool,
    ) -> None:  # fmt: skip
        """
        Args:
            batch_size: rows.
            pad_id, parts, first_position, typed: see `Rows`.
        """
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        self.start = (0, 0)  # epoch and batch that training begins with
        self.train, self.validation = (
            Rows(table, pad_id, parts, first_position, typed) for table in (train, validation)
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        sampler = Shuffled(len(self.train), self.batch_size, self.seed, self.start)
        return DataLoader(self.train, sampler=sampler, batch_size=None, num_workers=WORKERS)

    def val_dataloader(self) -> DataLoader[Batch]:
        sampler = ByLength(self.validation.lengths, self.batch_size)
        return DataLoader(self.validation, sampler=sampler, batch_size=None, num_workers=WORKERS)
