"""A run that was killed goes on where it was, and ends with the same bytes.

What is kept is what cannot be recomputed: the weights that are trained, the optimizer's
moments, how far training is, and what was measured so far. Order of rows, dropout and learning
rate are functions of (seed, epoch, batch), so there is nothing of them to keep.

Lightning's own resume would replay other batches, forget the epoch's mean loss and skip a
validation that was killed, so the position is set here.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch

from stages.training import weights
from stages.training.callbacks import BestEpoch
from stages.training.checkpoints import Checkpoints, Tensors
from stages.training.data import Splits
from stages.training.memory import Estimate
from stages.training.module import FineTuning
from stages.training.ranks import ALONE, Ranks, like


class Resuming(pl.Callback):
    """Writes checkpoints now and then, after an optimizer step or an epoch's validation."""

    def __init__(self, store: Checkpoints, best: BestEpoch, ranks: Ranks = ALONE) -> None:
        """
        Args:
            ranks: this process among those that train together; all take up what rank 0 writes.
        """
        self.store = store
        self.ranks = ranks
        self.best = best
        self.step = 0
        self._optimizer: Tensors = {}

    def restore(self, trainer: pl.Trainer, module: FineTuning, splits: Splits) -> None:
        """Take up the last checkpoint, if there is one. Call it before `trainer.fit`."""
        found = self.store.load()
        if found is None:
            return
        state, tensors, self.best.weights = found
        weights.restore(module.model, _part(tensors, "weight/"))
        self._optimizer = _part(tensors, "optimizer/")
        module.train_loss = list(tensors["train_loss"])
        module.tokens, module.padded = state["tokens"], state["padded"]
        module.resumed = module.tokens
        self.best.curve, self.best.epoch = state["curve"], state["best_epoch"]
        self.best.best = tuple(state["best"]) if state["best"] else None
        self.best.settled = state["settled"]
        module.memory = Estimate(**state["memory"]) if state["memory"] else None
        self.step = state["step"]
        splits.start = (state["epoch"], state["batch"])
        _set_position(trainer, state["epoch"], state["batch"], self.step)
        if self.ranks.speaks:
            print(f"training: goes on after step {self.step}", file=sys.stderr)

    def on_fit_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.store.ended = time.monotonic()  # start-up was not time to lose
        module.train_loss = [loss.to(module.device) for loss in module.train_loss]
        if not self._optimizer:
            return
        (optimizer,), (config,) = trainer.optimizers, trainer.lr_scheduler_configs
        names = _names(module, optimizer)
        own = dict(module.model.named_parameters())
        state = {
            number: {
                key: like(value, own[name])
                for key, value in _part(self._optimizer, f"{name}/").items()
            }
            for number, name in enumerate(names)
        }
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        config.scheduler.last_epoch = self.step
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * module.how.rate(self.step)
        self._optimizer = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        last = done == trainer.num_training_batches  # its validation is part of the epoch
        if not last and done % trainer.accumulate_grad_batches == 0:
            self._save(trainer, module, trainer.current_epoch, done)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        self._save(trainer, module, trainer.current_epoch + 1, 0)

    def _save(self, trainer: pl.Trainer, module: FineTuning, epoch: int, batch: int) -> None:
        """Write a checkpoint if it is time; `batch` of `epoch` is the next to come."""
        if not (self.ranks.speaks or self.ranks.sharded):
            return
        own = {n: p.detach() for n, p in module.model.named_parameters() if p.requires_grad}
        # Two moments, and the best weights.
        size = 4 * weights.size(own.values())
        if not self.ranks.agreed(self.ranks.speaks and self.store.due(size)):
            return
        (optimizer,) = trainer.optimizers
        tensors = {f"weight/{name}": weight for name, weight in own.items()}
        for name, values in zip(_names(module, optimizer), _states(optimizer), strict=True):
            tensors |= {f"optimizer/{name}/{key}": value for key, value in values.items()}
        tensors["train_loss"] = torch.stack(module.train_loss)
        state = {
            "epoch": epoch,
            "batch": batch,
            "step": trainer.global_step,
            "tokens": module.tokens,
            "padded": module.padded,
            "curve": self.best.curve,
            "best": self.best.best,
            "best_epoch": self.best.epoch,
            "settled": self.best.settled,
            "memory": module.memory.of_training() if module.memory else None,
        }
        cpu = weights.on_cpu(tensors, drop=not self.ranks.speaks)
        if self.ranks.speaks:
            self.store.save(trainer.global_step, state, cpu, self.best.weights)


def _set_position(trainer: pl.Trainer, epoch: int, batch: int, step: int) -> None:
    """Have Lightning's loops begin with a batch of an epoch."""
    loop = trainer.fit_loop
    inner = loop.epoch_loop
    for tracker in (loop.epoch_progress.total, loop.epoch_progress.current):
        tracker.ready = tracker.started = tracker.processed = tracker.completed = epoch  # type: ignore[attr-defined]
    inner.automatic_optimization.optim_progress.optimizer.step.total.completed = step
    inner.automatic_optimization.optim_progress.optimizer.step.total.ready = step
    inner._batches_that_stepped = step
    if batch == 0:
        return  # as if an epoch had just ended
    for tracker in (loop.epoch_progress.total, loop.epoch_progress.current):
        tracker.ready = tracker.started = epoch + 1  # type: ignore[attr-defined]
    for tracker in (inner.batch_progress.total, inner.batch_progress.current):
        tracker.ready = tracker.started = tracker.processed = tracker.completed = batch  # type: ignore[attr-defined]
    loop.restarting = True


def _names(module: FineTuning, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the optimizer's parameters, in its order."""
    names = {id(p): name for name, p in module.model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def _states(optimizer: torch.optim.Optimizer) -> list[Tensors]:
    return [optimizer.state[p] for group in optimizer.param_groups for p in group["params"]]


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
