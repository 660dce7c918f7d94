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
from stages.training import packing
from stages.training.batching import Batch, sizes
from stages.training.schedule import Optimization


class FineTuning(pl.LightningModule):
    """Trains a model that maps input_ids and attention_mask to logits.

    A batch arrives as a pack, or in padded parts of like length; the sum of their losses over
    the sum of their counts is the mean over the batch, however it was divided.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        run: Run,
        weight: np.ndarray | None,
        how: Optimization,
        adapted: Adapted | None = None,
    ) -> None:
        """
        Args:
            weight: weights of the classes in the loss [k], or None.
            adapted: what the method says of the model's weights; None: nothing in particular.
        """
        super().__init__()
        self.model = model
        self.run = run
        self.how = how
        self.adapted = adapted or Adapted(model)
        self.register_buffer(
            "weight", None if weight is None else torch.from_numpy(weight), persistent=False
        )
        self.train_loss: list[torch.Tensor] = []
        self.tokens = 0
        self.padded = 0
        self.resumed = 0  # tokens of those that an earlier process trained on
        self._validation: list[tuple[np.ndarray, np.ndarray, np.ndarray, float, float]] = []
        self.validation: dict[str, float] = {}

    def logits(self, part: dict[str, torch.Tensor]) -> torch.Tensor:
        if "lengths" in part:
            return packing.logits(self.model, part)
        out = self.model(input_ids=part["input_ids"], attention_mask=part["attention_mask"])
        return out.logits

    def losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Sum of the loss, what to divide it by, and the logits of each part."""
        logits = [self.logits(part) for part in batch]
        pairs = [
            self.run.task.loss(z, part["target"], self.run.task_params.loss, self.weight)
            for z, part in zip(logits, batch, strict=True)
        ]
        totals, counts = zip(*pairs, strict=True)
        return torch.stack(totals).sum(), torch.stack(counts).sum(), logits

    def on_train_epoch_start(self) -> None:
        self.train_loss = []

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout is a function of (seed, batch), not of what the process did before.
        number = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        state = np.random.SeedSequence([self.how.seed, 1, number]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]) & (2**63 - 1))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        with self._frozen():
            total, count, _ = self.losses(batch)
        loss = total / count
        self.train_loss.append(loss.detach())
        tokens, computed = sizes(batch)
        self.tokens += tokens
        self.padded += computed
        self.log("train_loss", loss.detach())
        return loss

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
        total, count, logits = self.losses(batch)
        target = np.concatenate([part["target"].cpu().numpy() for part in batch])
        values = np.concatenate([z.float().cpu().numpy() for z in logits])
        rows = np.concatenate([part["row"].cpu().numpy() for part in batch])
        self._validation.append((rows, target, values, float(total), float(count)))

    def on_validation_epoch_end(self) -> None:
        _, target, logits, totals, counts = zip(*self._validation, strict=True)
        scores = self.run.task.scores(np.concatenate(logits))
        once = np.ones((1, len(scores)))
        metrics = self.run.task.metrics(np.concatenate(target), scores, once)
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
