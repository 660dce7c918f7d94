"""The Lightning module: one step of fine-tuning, for any task and method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from stages.adaptation import Adapted
from stages.params import Run
from stages.training import packing, weights
from stages.training.batching import Batch, in_order, sizes, targets
from stages.training.predicting import padded
from stages.training.ranks import ALONE, Ranks, share_of, share_out
from stages.training.schedule import Optimization, steps_per_epoch
from stages.training.vocabulary import Vocabulary


class FineTuning(pl.LightningModule):
    """Trains a model that maps input_ids and attention_mask to logits.

    A batch arrives as a pack, or in padded parts of like length; the sum of their losses over
    the sum of their counts is the mean over the batch, however it was divided.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        run: Run,
        labels: list[str],
        learnt: dict[str, list[float]],
        how: Optimization,
        adapted: Adapted | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """
        Args:
            learnt: what the task learnt of the training targets.
            adapted: what the method says of the model's weights; None: nothing in particular.
            ranks: the process among those that train together.
        """
        super().__init__()
        self.model = model
        self.run = run
        self.labels = labels
        self.learnt = learnt
        self.how = how
        self.adapted = adapted or Adapted(model)
        self.ranks = ranks
        for name, values in learnt.items():
            self.register_buffer(f"learnt_{name}", torch.tensor(values), persistent=False)
        self.train_loss: list[torch.Tensor] = []
        self._counts: list[torch.Tensor] = []  # of the batches accumulated so far
        self.tokens = 0
        self.padded = 0
        self.memory: Any = None  # stages.training.memory.Estimate, once training begins
        self.packed = False  # are batches packs?
        self.vocabulary: Vocabulary | None = None  # of trained embeddings, where made small
        self.trunk = False  # is the output of frozen layers kept?
        self.resumed = 0  # tokens of those that an earlier process trained on
        self._validation: list[tuple[np.ndarray, np.ndarray, float, float]] = []
        self.validation: dict[str, float] = {}
        self.settled: dict[str, list[float]] = {}

    def logits(self, part: dict[str, torch.Tensor]) -> torch.Tensor:
        """[n, k], or [tokens, k] of a head on tokens."""
        task = self.run.task
        if "lengths" in part:
            return packing.logits(self.model, part, task.logits, task.arguments(part))
        return padded(self.model, part, task.logits)

    def losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Sum of the loss, what to divide it by, and the logits of each part."""
        logits = [self.logits(part) for part in batch]
        learnt = {name: getattr(self, f"learnt_{name}") for name in self.learnt}
        pairs = [
            self.run.task.loss(z, part, self.run.task_params.loss, learnt)
            for z, part in zip(logits, batch, strict=True)
        ]
        totals, counts = zip(*pairs, strict=True)
        return torch.stack(totals).sum(), torch.stack(counts).sum(), logits

    def trained(self, step: int) -> dict[str, torch.Tensor]:
        """The trained weights after so many optimizer steps, by name; a copy."""
        found = weights.trained(self.model, drop=self.ranks.sharded and not self.ranks.speaks)
        if self.vocabulary is None:
            return found
        per_epoch = steps_per_epoch(
            int(self.trainer.num_training_batches), self.trainer.accumulate_grad_batches
        )
        return self.vocabulary.whole(found, self.how, step, per_epoch)

    def configure_model(self) -> None:
        if self.ranks.sharded:
            assert self.device_mesh is not None
            halved = self.trainer.precision == "bf16-mixed"
            share_out(self.model, self.device_mesh["data_parallel"], halved=halved)

    def on_train_epoch_start(self) -> None:
        self.train_loss = []

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout is a function of (seed, batch), not of what the process did before.
        number = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        entropy = [self.how.seed, 1, number, *([self.ranks.rank] if self.ranks.rank else [])]
        state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]) & (2**63 - 1))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        with self._frozen():
            total, count, _ = self.losses(batch) if batch else self._nothing()
        tokens, computed = sizes(batch)
        whole = total.detach()
        if self.ranks.count > 1:  # gradients will be averaged over them, so all is
            found = self.ranks.sums(whole, count, tokens, computed)
            tokens, computed = (int(size) for size in found[2:])
            whole, count = ((x / self.ranks.count).to(total.dtype) for x in found[:2])
        divisor = _divisor(count)
        loss, mean = total / divisor, whole / divisor
        self.train_loss.append(mean)
        self.log("train_loss", mean)
        self.tokens += tokens
        self.padded += computed
        if self.trainer.accumulate_grad_batches > 1:
            self._counts.append(count)
            loss = total  # to be divided once the count of all batches of the step is known
        return loss

    def _nothing(self) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """`losses` where the batch has no row for this rank: a row that counts for nothing, so
        that its gradients are there to be averaged, and are 0."""
        row = self.trainer.datamodule.train[np.zeros(1, np.int64)]  # type: ignore[attr-defined]
        batch = [{name: x.to(self.device) for name, x in part.items()} for part in row]
        total, count, logits = self.losses(batch)
        return total * 0, count * 0, logits

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Make of the gradients of accumulated sums that of the mean over all of the step's
        batches, as one large batch would have it."""
        if not self._counts:
            return
        # Lightning has divided each sum by the number of batches, also in a last step of fewer.
        scale = self.trainer.accumulate_grad_batches / _divisor(torch.stack(self._counts).sum())
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        torch._foreach_mul_([share_of(gradient) for gradient in gradients], scale)
        self._counts = []

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """Weights that join in a later epoch are constants of the graph that is built here, so
        nothing is computed for them on the way back."""
        joins = self.adapted.joins
        later = [
            weight
            for name, weight in self.model.named_parameters()
            if joins.get(name, 0) > self.current_epoch and weight.requires_grad
        ]
        for weight in later:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in later:
                weight.requires_grad_(True)

    def on_validation_epoch_start(self) -> None:
        self._validation = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if not batch:
            if self.ranks.sharded:
                self._nothing()
            return
        total, count, logits = self.losses(batch)
        kept = [self.run.task.kept(z, part) for z, part in zip(logits, batch, strict=True)]
        values = np.concatenate([z.float().cpu().numpy() for z in kept])
        rows = np.concatenate([part["row"].cpu().numpy() for part in batch])
        self._validation.append((rows, values, float(total), float(count)))

    def on_validation_epoch_end(self) -> None:
        task, data = self.run.task, self.trainer.datamodule.validation  # type: ignore[attr-defined]
        found = self.ranks.gathered(self._validation)
        rows, values, totals, counts = zip(*found, strict=True)
        logits = in_order(data.offsets, np.concatenate(rows), np.concatenate(values))
        target = targets(data.table)
        self.settled = task.settle(
            target, logits, data.table, self.labels, self.learnt, self.run.task_params.loss
        )
        scores = task.scores(logits, data.table, self.labels, self.learnt | self.settled)
        metrics = task.metrics(target, scores, np.ones((1, len(scores))))
        self.validation = {"loss": sum(totals) / sum(counts)}
        self.validation |= {name: float(value[0]) for name, value in metrics.items()}
        self.log_dict({f"validation_{name}": value for name, value in self.validation.items()})

    def configure_optimizers(self) -> Any:
        """AdamW (Loshchilov and Hutter, 2019), without decay on biases and norms."""
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, weight in self.model.named_parameters():
            if weight.requires_grad:
                rate = self.adapted.rates.get(name, 1.0)
                decays = weight.ndim > 1 and name not in self.adapted.undecayed
                decay = self.how.weight_decay if decays else 0.0
                groups.setdefault((rate, decay), []).append(weight)
        whole = self.how.learning_rate
        optimizer = torch.optim.AdamW(
            [  # the whole rate first, which is what the curve shows
                {"params": groups[rate, decay], "lr": whole * rate, "weight_decay": decay}
                for rate, decay in sorted(groups, reverse=True)
            ],
            lr=whole,
            fused=True,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.how.rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By norm. Lightning's own refuses fused optimizers under mixed precision, for fear of
        scaled gradients; bfloat16 needs no scaling."""
        if gradient_clip_val:
            trained = [p for p in self.model.parameters() if p.requires_grad]
            torch.nn.utils.clip_grad_norm_(trained, gradient_clip_val)


def _divisor(count: torch.Tensor) -> torch.Tensor:
    """What a sum of losses is divided by; 1 where there was no target to learn."""
    return torch.where(count == 0, torch.ones_like(count), count)
