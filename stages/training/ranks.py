"""Several processes that train one model on the devices of one machine: each holds all of it
(`ddp`), or a share of weights, gradients and moments (`fsdp`: Zhao et al., "PyTorch FSDP", 2023,
arXiv:2304.11277; torch's `fully_shard`, by Lightning's ModelParallelStrategy).

Each batch is that of a single process, dealt out to the ranks; their gradients are those of the
mean over the whole of it. So what is learnt is, but for dropout and rounding, what one process
learns. Rank 0 alone writes and speaks.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stages.adaptation import Adapted, blocks
from stages.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from lightning.pytorch.strategies import Strategy

SharingOut = Literal["ddp", "fsdp"]
LAYERDROPS = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop")  # in transformers' configs


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1
    sharded: bool = False
    """Has each a share of the weights? Then all must compute at the same time."""

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

    def agreed(self, value: bool) -> bool:
        """Rank 0's word on what all must do; where each holds the whole, every rank its own."""
        import torch

        if not self.sharded:
            return value
        found = [value]
        torch.distributed.broadcast_object_list(found)
        return found[0]


ALONE = Ranks()


def join(devices: int, device: str, strategy: SharingOut = "ddp") -> Ranks:
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
    ranks = Ranks(int(os.environ.get("LOCAL_RANK", "0")), devices, strategy == "fsdp")
    if device == "cuda":
        torch.cuda.set_device(ranks.rank)
    return ranks


def strategy(ranks: Ranks) -> dict[str, Any]:
    """Arguments of Lightning's Trainer."""
    if ranks.count == 1:
        return {"devices": 1}
    return {
        "devices": ranks.count,
        "strategy": _fsdp(ranks.count) if ranks.sharded else _ddp(),
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


def _fsdp(count: int) -> Strategy:
    from lightning.pytorch.plugins.environments import LightningEnvironment
    from lightning.pytorch.strategies import ModelParallelStrategy

    found = ModelParallelStrategy(data_parallel_size=count, tensor_parallel_size=1)
    found.cluster_environment = LightningEnvironment()
    return found


def check(model: torch.nn.Module, adapted: Adapted) -> None:
    """
    Raises:
        UserError: the weights cannot be shared out.
    """
    problem = None
    config = getattr(model, "config", None)
    drops = [name for name in LAYERDROPS if getattr(config, name, 0)]
    if drops:
        problem = f"a base that leaves out layers at random ({drops[0]} in its config.json)"
    elif adapted.joins:
        problem = "layers that join later (methods.full.gradual_unfreeze)"
    elif not all(weight.is_floating_point() for weight in model.parameters()):
        problem = "weights of 4 bits (methods.lora.base_bits)"
    if problem:
        raise UserError(
            f"params.yaml: finetune.strategy: {problem} cannot be shared out, got 'fsdp'; write ddp"
        )


def share_out(model: Any, mesh: Any, *, halved: bool) -> None:
    """Leave each rank its share of every weight; a layer is gathered while it computes.

    Args:
        mesh: torch's `DeviceMesh` of the ranks.
        halved: compute in bfloat16; weights, moments and sums of gradients stay in float32.
    """
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # In bfloat16 here, for autocast would keep a copy of every weight until the way back.
    kept = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if halved else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    for layer in layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=kept)
    # Else the rest would stay gathered after a validation, where callbacks read the weights.
    fully_shard(model, mesh=mesh, mp_policy=kept, reshard_after_forward=True)


def layers(model: Any) -> list[torch.nn.Module]:
    """Those that are gathered one by one; a model may have none."""
    with suppress(UserError):
        return [*blocks(model)[1]]
    return []


def share_of(value: torch.Tensor) -> torch.Tensor:
    """What this rank holds of it, in the same memory."""
    from torch.distributed.tensor import DTensor

    return value.to_local() if isinstance(value, DTensor) else value


def like(value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A whole tensor, shared out as another of its shape is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(other, DTensor) or value.shape != other.shape:
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)


def leave(ranks: Ranks) -> None:
    """Ends this process unless it is rank 0. Call it when training is over."""
    import torch

    if ranks.count > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if ranks.rank:
        raise SystemExit
