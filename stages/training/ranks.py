"""Several processes that train one model: Lightning's `ddp` on the devices of one machine.

Each batch is that of a single process, dealt out to the ranks; their gradients are those of the
mean over the whole of it. So what is learnt is, but for dropout and rounding, what one process
learns. Rank 0 alone writes and speaks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from lightning.pytorch.strategies import Strategy


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1

    @property
    def speaks(self) -> bool:
        """Is it the one that writes files and lines?"""
        return self.rank == 0

    def share(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """This rank's rows of a batch [n]: about as many tokens as any other's; maybe none.

        Args:
            lengths: tokens of each row of the table.
        """
        import numpy as np

        if self.count == 1:
            return rows
        return rows[np.argsort(-lengths[rows], kind="stable")][self.rank :: self.count]

    def sums(self, *values: torch.Tensor | float) -> list[torch.Tensor]:
        """Numbers summed over the ranks, in double precision; every rank must call it."""
        import torch

        device = next((x.device for x in values if isinstance(x, torch.Tensor)), None)
        found = torch.tensor([float(x) for x in values], dtype=torch.float64, device=device)
        torch.distributed.all_reduce(found)
        return [*found]

    def gathered(self, values: list[Any]) -> list[Any]:
        """The lists of all ranks, joined in their order; every rank must call it."""
        import torch

        if self.count == 1:
            return values
        found: list[list[Any]] = [[] for _ in range(self.count)]
        torch.distributed.all_gather_object(found, values)
        return [value for part in found for value in part]


ALONE = Ranks()


def join(devices: int, device: str) -> Ranks:
    """The place of this process, which is rank 0 unless rank 0 has started it.

    Raises:
        UserError: there are fewer GPUs.
    """
    import torch

    if devices == 1:
        return ALONE
    if device == "cuda" and devices > (found := torch.cuda.device_count()):
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        where = f"among CUDA_VISIBLE_DEVICES={shown}" if shown else "on this machine"
        advice = " or give the stage more by `gpu` in its `meta` in dvc.yaml" if shown else ""
        raise UserError(
            f"params.yaml: finetune.devices: torch finds {found} {where}, got {devices}; "
            f"write at most {found}{advice}"
        )
    ranks = Ranks(int(os.environ.get("LOCAL_RANK", "0")), devices)
    if device == "cuda":
        torch.cuda.set_device(ranks.rank)
    return ranks


def strategy(ranks: Ranks) -> dict[str, Any]:
    """Arguments of Lightning's Trainer."""
    if ranks.count == 1:
        return {"devices": 1}
    return {
        "devices": ranks.count,
        "strategy": _ddp(),
        "use_distributed_sampler": False,  # batches are dealt out already
    }


def _ddp() -> Strategy:
    from lightning.pytorch.plugins.environments import LightningEnvironment
    from lightning.pytorch.strategies import DDPStrategy

    return DDPStrategy(
        # Not SLURM's, whose tasks would have to be as many: a stage is one task, and starts the
        # other processes itself.
        cluster_environment=LightningEnvironment(),
        broadcast_buffers=False,  # constants, all of them
        # Layers that join later, rows that are none, heads that a task does not use.
        find_unused_parameters=True,
    )


def leave(ranks: Ranks) -> None:
    """Ends this process unless it is rank 0. Call it when training is over."""
    import torch

    if ranks.count > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if ranks.rank:
        raise SystemExit
