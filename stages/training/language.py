"""Language modelling on blocks of tokens, as what `fit` trains: the losses of tokens, not their
logits, leave the model, for these are a vocabulary each."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from stages.params import Section

if TYPE_CHECKING:
    import pyarrow as pa


class Loss(Section):
    """None to set."""


class Params(Section):
    loss: Loss


class LossesLMHeadModel(GPT2LMHeadModel):
    """A GPT-2 whose output is the loss of each token, [n, length, 1]; 0 of the first of a row."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> Any:
        hidden = self.transformer(
            input_ids, attention_mask=attention_mask, position_ids=position_ids
        ).last_hidden_state
        goals = input_ids[:, 1:]
        logits = self.lm_head(hidden[:, :-1]).flatten(0, 1).float()
        losses = torch.nn.functional.cross_entropy(logits, goals.flatten(), reduction="none")
        losses = losses.view(goals.shape)
        if position_ids is not None:  # a pack: rows end to end
            losses = losses * (position_ids[:, 1:] > 0)
        return SimpleNamespace(logits=torch.nn.functional.pad(losses, (1, 0))[..., None])


@dataclass(frozen=True)
class Language:
    """As much of `stages.tasks.base.Task` as training needs."""

    config: GPT2Config
    MAIN_METRIC = SELECTION_METRIC = "log_likelihood"

    def build_model(self, base: Any, labels: list[str]) -> tuple[GPT2LMHeadModel, list[str]]:
        """With random weights: there is no base."""
        return LossesLMHeadModel(self.config), []

    def logits(self, output: Any) -> torch.Tensor:
        return output.logits

    def arguments(self, part: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {}

    def kept(self, logits: torch.Tensor, part: dict[str, torch.Tensor]) -> torch.Tensor:
        return logits

    def learn(self, target: np.ndarray, labels: list[str], loss: Any) -> dict[str, list[float]]:
        return {}

    def loss(
        self, logits: torch.Tensor, part: dict[str, torch.Tensor], loss: Any, learnt: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return logits.sum(), part["target_tokens"].sum()

    def settle(self, *_: Any) -> dict[str, list[float]]:
        return {}

    def scores(
        self, logits: np.ndarray, examples: pa.Table, labels: list[str], learnt: Any
    ) -> np.ndarray:
        """Of each block its loss and how many tokens it is of, [blocks, 2]."""
        starts = examples["input_ids"].combine_chunks().offsets.to_numpy()[:-1]
        sums = np.add.reduceat(logits[:, 0].astype(np.float64), starts)
        return np.stack([sums, examples["target_tokens"].to_numpy()], 1)

    def metrics(
        self, target: np.ndarray, scores: np.ndarray, weights: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Natural logarithms; `target`: bytes of each block."""
        total, tokens = (weights @ scores).T
        per_byte = total / (weights @ target)
        return {
            "log_likelihood": -total / tokens,
            "loss_per_byte": per_byte,
            "bits_per_byte": per_byte / np.log(2),
            "perplexity": np.exp(total / tokens),
        }
