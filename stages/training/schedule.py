"""How many optimizer steps there are, and the learning rate at each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Schedule = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True)
class Optimization:
    """Everything that shapes the optimizer; lengths are in optimizer steps."""

    learning_rate: float
    weight_decay: float
    warmup_steps: int
    steps: int
    schedule: Schedule
    seed: int

    def rate(self, step: int) -> float:
        """Share of the learning rate at a step, counted from 0: a linear rise over the
        warm-up, then linear or cosine decay to 0, or none."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.schedule == "constant":
            return 1.0
        done = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        return 1.0 - done if self.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def steps_per_epoch(batches: int, accumulate: int) -> int:
    """Optimizer steps; the last of an epoch may have fewer batches than the others."""
    return -(-batches // accumulate)
