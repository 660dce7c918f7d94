"""What happens around the steps: the learning curve, the best epoch, the progress line."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch

from stages.training.batching import sizes
from stages.training.data import Splits
from stages.training.module import FineTuning


class BestEpoch(pl.Callback):
    """Keeps a copy of the trained weights of the best epoch, and a row for every epoch.

    Better is a higher main metric on the validation split; a tie goes to the lower loss.
    """

    def __init__(self, metric: str, patience: int = 0) -> None:
        """
        Args:
            patience: epochs without a higher metric after which training stops; 0: never.
        """
        self.metric = metric
        self.patience = patience
        self.curve: list[dict[str, float]] = []
        self.best: tuple[float, float] | None = None
        self.epoch = 0
        self.weights: dict[str, torch.Tensor] = {}
        self.settled: dict[str, list[float]] = {}  # by the task on the validation split

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, FineTuning)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.judge(module, trainer.current_epoch + 1, trainer.global_step, rate)
        if self.stops():
            trainer.should_stop = True

    def judge(self, module: FineTuning, epoch: int, step: int, rate: float) -> None:
        """Note what an epoch gave, and keep its weights if they are the best."""
        validation = module.validation
        row = {
            "epoch": epoch,
            "step": step,
            "learning_rate": rate,
            "train_loss": float(torch.stack(module.train_loss).mean()),
        }
        row |= {f"validation_{name}": value for name, value in validation.items()}
        self.curve.append(row)
        score = _score(validation[self.metric], validation["loss"])
        if self.best is None or score > self.best:
            self.best, self.epoch = score, int(row["epoch"])
            self.weights = module.trained(step)
            self.settled = module.settled

    def stops(self) -> bool:
        """Has the metric not risen for too long?"""
        values = [
            _score(row[f"validation_{self.metric}"], row["validation_loss"])[0]
            for row in self.curve
        ]
        since = len(values) - 1 - values.index(max(values)) if values else 0
        return 0 < self.patience <= since


def _score(metric: float, loss: float) -> tuple[float, float]:
    """Of an epoch, the higher the better. One that has diverged is below all others, whatever its
    metric: of logits that are no numbers some class is still the first."""
    if not (math.isfinite(metric) and math.isfinite(loss)):
        return -math.inf, -math.inf
    return metric, -loss


def measure(trainer: pl.Trainer, module: FineTuning, splits: Splits, best: BestEpoch) -> None:
    """For a method that takes no steps: its losses, as if after an epoch."""
    trainer.validate(module, datamodule=splits, verbose=False)
    module.to(trainer.strategy.root_device)  # which Lightning takes it off in the end
    module.eval()
    totals, counts = [], []
    with torch.no_grad():
        for parts in splits.train_dataloader():
            batch = [{name: x.to(module.device) for name, x in part.items()} for part in parts]
            total, count, _ = module.losses(batch)
            totals.append(total)
            counts.append(count)
            tokens, computed = sizes(batch)
            module.tokens += tokens
            module.padded += computed
    module.train_loss = [torch.stack(totals).sum() / torch.stack(counts).sum()]
    best.judge(module, epoch=1, step=0, rate=0.0)


class Progress(pl.Callback):
    """One line that is rewritten on a terminal; elsewhere a line now and then."""

    WIDTH = 79
    SECONDS_BETWEEN_LINES = 30.0

    def __init__(self, metric: str, epochs: int) -> None:
        self.metric = metric
        self.epochs = epochs
        self.terminal = sys.stderr.isatty()
        self.shown = 0.0
        self.started = 0.0
        self.first = 0  # batches that an earlier process did

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.started = self.shown = time.monotonic()
        epoch, loop = trainer.current_epoch, trainer.fit_loop.epoch_loop
        self.first = epoch * int(trainer.num_training_batches) + loop.batch_progress.current.ready

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self.shown < (0.1 if self.terminal else self.SECONDS_BETWEEN_LINES):
            return
        self.shown = now
        count = int(trainer.num_training_batches)
        batches, total = trainer.current_epoch * count + batch_idx + 1, self.epochs * count
        done = batches / total
        left = (now - self.started) * (total - batches) / (batches - self.first)
        loss = float(torch.stack(module.train_loss[-20:]).mean())
        filled = round(20 * done)
        text = (
            f"epoch {trainer.current_epoch + 1}/{self.epochs} [{'#' * filled}{'.' * (20 - filled)}]"
            f" {done:4.0%}  loss {loss:.4f}  {_clock(left)} left"
        )
        self._show(text)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, FineTuning)
        loss = float(torch.stack(module.train_loss).mean())
        value = module.validation[self.metric]
        text = (
            f"epoch {trainer.current_epoch + 1}/{self.epochs}: train loss {loss:.4f}, validation "
            f"loss {module.validation['loss']:.4f}, {self.metric} {value:.4f}"
        )
        self._show(text, keep=True)

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        self._show("", keep=True)

    def _show(self, text: str, keep: bool = False) -> None:
        if self.terminal:
            end = "\n" if keep else ""
            sys.stderr.write("\r" + text[: self.WIDTH].ljust(self.WIDTH) + end)
        elif text:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
