"""What training takes of the device's memory, estimated before the first step.

Weights, gradients and AdamW's two moments are known. What the forward pass keeps for the way
back is measured on two and on four copies of the longest row: the difference is what a row adds,
for any architecture, method and precision, and the rest is there once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from stages.adaptation import blocks
from stages.errors import UserError
from stages.training import ranks, weights
from stages.training.batching import Rows
from stages.training.data import Splits
from stages.training.module import FineTuning

GB = 1e9


@dataclass(frozen=True)
class Estimate:
    """Bytes at the heaviest step; on a GPU those of its memory alone."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    program: int = 0  # on a CPU: Python, its libraries, the rows, and a copy of the best weights

    @property
    def total(self) -> int:
        return self.fixed + self.activations

    @property
    def fixed(self) -> int:
        """What no smaller batch saves."""
        return self.weights + self.gradients + self.optimizer + self.program

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / GB:.2f}" for name, size in asdict(self).items())
        return f"{self.total / GB:.1f} GB ({parts})"

    def of_training(self) -> dict[str, int]:
        """The parts that follow from the inputs alone, whatever the program takes."""
        return {name: size for name, size in asdict(self).items() if name != "program"}


def estimate(
    module: FineTuning, splits: Splits, device: str, precision: str, *, recomputed: bool
) -> Estimate:
    """Estimate a run whose model is ready to be trained.

    Args:
        recomputed: layers are computed again on the way back; the model does not yet.
    """
    module.to(device)
    whole = weights.size(module.parameters())
    trained = weights.size(w for w in module.parameters() if w.requires_grad)
    row = np.array([int(splits.train.lengths.argmax())])
    two, four = (
        _kept_for_the_way_back(module, splits.train, row.repeat(copies), device, precision)
        for copies in (2, 4)
    )
    of_token = (four - two) / 2 / int(splits.train.lengths[row[0]])
    tokens = heaviest(splits)
    activations = of_token * tokens
    if recomputed:  # of each layer its input is kept, and all of one at a time
        layers = len(blocks(_plain(module.model))[1])
        hidden = int(_plain(module.model).config.hidden_size)
        activations = activations / layers + 4 * tokens * hidden * layers
    once = max(0.0, two - (four - two))
    shares = module.ranks.count if module.ranks.sharded else 1
    gathered = _gathered(module.model) if module.ranks.sharded else 0
    process = psutil.Process().memory_info().rss if device == "cpu" else 0
    return Estimate(
        weights=whole // shares + gathered,
        gradients=trained // shares,
        optimizer=2 * trained // shares,
        activations=round(activations + once),
        program=max(0, process - whole) + (trained if device == "cpu" else 0),
    )


def _gathered(model: Any) -> int:
    """Bytes of what `ranks.share_out` gathers: all weights but those of the layers with their
    gradients, and of layers one that computes, its gradients, and the next."""
    sizes = [weights.size(layer.parameters()) for layer in ranks.layers(model)]
    of_all = weights.size(model.parameters())
    return 2 * (of_all - sum(sizes)) + 3 * max(sizes, default=0)


def heaviest(splits: Splits) -> int:
    """Tokens that the heaviest batch of the first epoch computes, wherever training goes on."""
    lengths = splits.train.lengths
    packed = splits.train.first_position is not None
    return max(
        int(lengths[rows].sum() if packed else len(rows) * lengths[rows].max())
        for rows in splits.order((0, 0))
        if len(rows)  # a rank may have no share of a small batch
    )


def require(found: Estimate, batch: int, name: str, device: str, processes: int = 1) -> int:
    """Bytes that are free.

    Args:
        processes: that share the memory of a CPU, or have a GPU each.
        batch: value of the parameter `finetune.<name>` that sets the size of a batch.

    Raises:
        UserError: the device as a whole has less than the estimate.
    """
    free, whole = (size // (processes if device == "cpu" else 1) for size in memory(device))
    if found.total <= whole:
        return free
    problem = f"training takes about {found}, of {whole / GB:.1f} GB that the device has"
    share = (whole - found.fixed) / max(1, found.activations)
    if share * batch < 1:
        raise UserError(
            f"params.yaml: run.method: {problem}, however small a batch; write head_only or lora, "
            "or take a smaller base"
        )
    raise UserError(
        f"params.yaml: finetune.{name}: {problem}, got {batch}; write at most "
        f"{int(share * batch)}, and raise finetune.accumulate by as much, or write "
        "finetune.gradient_checkpointing: true"
    )


def memory(device: str) -> tuple[int, int]:
    """Bytes that are free, and that there are; of a control group where it has a limit."""
    if device == "cuda":
        free, whole = torch.cuda.mem_get_info()
        return int(free), int(whole)
    found = psutil.virtual_memory()
    whole = min([int(found.total), *_limits()])
    return min(int(found.available), whole), whole


def _limits() -> list[int]:
    """Those of the control groups that this process is in, as containers and SLURM set them."""
    root = Path("/sys/fs/cgroup")
    try:
        own = Path("/proc/self/cgroup").read_text().strip().rpartition(":")[2].lstrip("/")
        files = [folder / "memory.max" for folder in [root / own, *(root / own).parents]]
        texts = [file.read_text().strip() for file in files if file.is_file()]
    except OSError:
        return []
    return [int(text) for text in texts if text.isdigit()]


def _plain(model: torch.nn.Module) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def _kept_for_the_way_back(
    module: FineTuning, rows: Rows, chosen: np.ndarray, device: str, precision: str
) -> int:
    """Bytes of the tensors that a forward pass keeps, without the weights themselves."""
    own = {weight.untyped_storage().data_ptr() for weight in module.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = [{name: x.to(device) for name, x in part.items()} for part in rows[chosen]]
    halved = precision == "bf16-mixed"
    with (
        torch.random.fork_rng(),
        torch.autocast(device, torch.bfloat16, enabled=halved),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        total, _, _ = module.losses(batch)
    del total  # until here the graph holds what was noted, so that no address is used twice
    return sum(kept.values())
