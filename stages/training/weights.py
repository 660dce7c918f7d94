"""models/finetuned/: the weights that were trained, and no others.

The frozen rest is the base's and is read from there, so that a LoRA run stores a few
hundred kilobytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stages.artifacts import read_json, replacing_folder, write_json
from stages.errors import UserError
from stages.params import Run
from stages.training.machine import Machine

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from stages.adaptation import Adapted

BASE = Path("data/base")
FINETUNED = Path("models/finetuned")


def trained(model: torch.nn.Module, *, drop: bool = False) -> dict[str, torch.Tensor]:
    """A copy, on the CPU, of the weights that require a gradient, by name; `drop`: see `on_cpu`."""
    own = {n: weight.detach() for n, weight in model.named_parameters() if weight.requires_grad}
    return on_cpu(own, copy=True, drop=drop)


def on_cpu(
    tensors: Mapping[str, torch.Tensor], *, copy: bool = False, drop: bool = False
) -> dict[str, torch.Tensor]:
    """The same, on the CPU and whole. Where each rank holds a share, every rank must call it.

    Args:
        copy: also of those that are there already.
        drop: keep nothing, for a rank that only lends its shares.
    """
    found = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if not drop:
            found[name] = value.to("cpu", copy=copy).contiguous()
    return found


def whole(value: torch.Tensor) -> torch.Tensor:
    """The tensor of which this rank may hold a share; where it does, every rank must call it."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def size(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def restore(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Put trained weights back in place.

    Raises:
        ValueError: the names or shapes differ from those that the model trains.
    """
    import torch

    own = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if {name: w.shape for name, w in own.items()} != {name: w.shape for name, w in weights.items()}:
        raise ValueError("other names or shapes")
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(weights[name])


def begin_at(model: torch.nn.Module, prior: list[float]) -> None:
    """Have the head's outputs begin around these values, where it has a bias.

    Args:
        prior: [k], of its outputs.
    """
    import torch

    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    head = layers[-1]  # in the order of computation
    if head.bias is not None and len(head.bias) == len(prior):
        with torch.no_grad():
            head.bias.copy_(torch.tensor(prior))


def save(
    weights: dict[str, torch.Tensor],
    run: Run,
    labels: list[str],
    machine: Machine,
    learnt: Mapping[str, list[float]] = MappingProxyType({}),
) -> None:
    """Write models/finetuned/; `learnt` is what the task learnt of the targets."""
    from safetensors.torch import save_file

    with replacing_folder(FINETUNED) as folder:
        # One metadata key at most: safetensors writes several in an order that varies.
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        write_json(
            folder / "finetuned.json",
            {
                "task": run.task_name,
                "method": run.method_name,
                "method_params": run.method_params.model_dump(mode="json"),
                "labels": labels,
                "learnt": dict(learnt),
                "device_class": machine.device_class(),
            },
        )


def description() -> dict[str, Any]:
    """What models/finetuned/ says of itself: task, method, labels, what was learnt of the
    targets, device class."""
    return read_json(FINETUNED / "finetuned.json")


def load(run: Run) -> PreTrainedModel:
    """The fine-tuned model as a plain transformers model, in evaluation mode; what was learnt of
    the targets is in it, or in its config as `finetuning_learnt`.

    Raises:
        UserError: the weights do not fit the base.
    """
    from safetensors.torch import load_file

    return assemble(run, description(), load_file(FINETUNED / "model.safetensors"), FINETUNED)


def assemble(
    run: Run, about: dict[str, Any], trained: dict[str, torch.Tensor], place: Path
) -> PreTrainedModel:
    """The base with trained weights in place, in evaluation mode.

    Args:
        about: as `description` gives it.
        place: where they come from.

    Raises:
        UserError: the weights do not fit the base.
    """
    model, _ = build(run, about["labels"], run.method.Params(**about["method_params"]))
    try:
        restore(model, trained)
    except ValueError:
        raise UserError(
            f"{place}: its weights do not fit {BASE}; run `dvc repro` to train them anew"
        ) from None
    plain: PreTrainedModel = run.method.merge(model).eval()
    plain.config.finetuning_learnt = run.task.fold(plain, about["learnt"])
    return plain


def build(
    run: Run, labels: list[str], method_params: Any, dropout: float | None = None
) -> tuple[Any, Adapted]:
    """The module to train, and how, as the method says.

    New weights are drawn from torch's global generator; seed it first.

    Args:
        dropout: in the base and its head, the method's own left out; None: as the base's config
            has it.
    """
    from transformers.utils import logging

    from stages.training.dropout import set_rate

    logging.set_verbosity_error()  # the report of new head weights is no news
    logging.disable_progress_bar()
    model, new = run.task.build_model(BASE, labels)
    if dropout is not None:
        set_rate(model, dropout)
    adapted = run.method.apply(model, new, method_params)
    return adapted.module, adapted
