"""Training of one model by Lightning: what `finetune` and `trial` share.

`fit` is a function of the parameters and the rows; where results go is the stage's business.

Start-up: most of what importing Lightning costs, transformers' model classes import as well
(torch._dynamo, torch.distributed, scipy.optimize). What it adds to them is torchmetrics, which it
imports for one base class, and with it scipy.signal, because it is installed. There is no switch
for either, and a stand-in would have to follow both libraries' insides, so both stay.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from stages.adaptation import Start
from stages.artifacts import finite
from stages.errors import UserError
from stages.params import Run, Section
from stages.pins import versions
from stages.training.machine import Device, Machine, Precision
from stages.training.ranks import SharingOut
from stages.training.schedule import Optimization, Schedule, steps_per_epoch

if TYPE_CHECKING:
    import lightning.pytorch as pl
    import pyarrow as pa

    from stages.training import memory
    from stages.training.callbacks import BestEpoch
    from stages.training.checkpoints import Checkpoints
    from stages.training.data import Splits
    from stages.training.module import FineTuning
    from stages.training.ranks import Ranks
    from stages.training.trunk import Trunk

LIBRARIES = ("torch", "lightning", "transformers", "safetensors", "numpy", "pyarrow")
PARTS = {"cpu": 3, "cuda": 1}  # parts of like length that a batch is padded in


class Finetune(Section):
    seed: int = Field(ge=0, lt=2**32)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1, description="rows")
    batch_tokens: int | None = Field(ge=1, description="tokens at most, instead of batch_size")
    accumulate: int = Field(ge=1, description="batches an optimizer step")
    learning_rate: float = Field(gt=0, le=1)
    weight_decay: float = Field(ge=0, le=1)
    warmup_epochs: float = Field(ge=0)
    schedule: Schedule
    clip_norm: float = Field(ge=0, description="0: no clipping")
    dropout: float | None = Field(ge=0, lt=1, description="null: the base's own")
    gradient_checkpointing: bool = Field(description="compute layers again on the way back")
    keep_frozen: bool = Field(description="keep the output of frozen layers from epoch to epoch")
    early_stopping: int = Field(ge=0, description="epochs without improvement; 0: never")
    device: Device
    devices: int = Field(ge=1, description="processes that share each batch, a device each")
    strategy: SharingOut = Field(description="of several devices")
    precision: Precision
    threads: int = Field(ge=1)

    @model_validator(mode="after")
    def _warmup_ends(self) -> Finetune:
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs: warm-up longer than training, got {self.warmup_epochs}; "
                f"write at most {self.epochs} (finetune.epochs)"
            )
        return self


def of_method(params: Finetune, run: Run) -> Finetune:
    """The section with as many epochs as the method needs."""
    least = getattr(run.method_params, "min_epochs", None) or 1
    return lasting(params, max(least, params.epochs))


def lasting(params: Finetune, epochs: int) -> Finetune:
    """The section with so many epochs; the warm-up's share stays."""
    if epochs == params.epochs:
        return params
    warmup = params.warmup_epochs * epochs / params.epochs
    return params.model_copy(update={"epochs": epochs, "warmup_epochs": warmup})


def checkpoints(
    params: Finetune, run: Run, machine: Machine, *more: Any, prefix: str = ""
) -> Checkpoints:
    """Where a run with these inputs keeps its checkpoints.

    Args:
        more: whatever else the result depends on, as JSON.
        prefix: of the folder's name.
    """
    from stages.training.checkpoints import FOLDER, Checkpoints, key

    names = {"run.task": run.task_name, "run.method": run.method_name}
    libraries = versions((*LIBRARIES, *run.method.LIBRARIES))
    values = (names, parameters(params, run), libraries, machine.device_class(), *more)
    return Checkpoints(FOLDER / f"{prefix}{key('finetune', names, *values)}")


def fit(
    params: Finetune,
    run: Run,
    machine: Machine,
    labels: list[str],
    train: pa.Table,
    validation: pa.Table,
    store: Checkpoints | None = None,
    tracked: bool = True,
) -> tuple[FineTuning, BestEpoch]:
    """Train; the callback returned holds the weights of the best epoch.

    Args:
        store: where checkpoints go, and where training goes on from; None: none are kept.
        tracked: report the steps to the loggers.

    Raises:
        SystemExit: this process has helped another one, which goes on alone.
    """
    from stages.training import loggers, ranks
    from stages.training.callbacks import BestEpoch, Progress, measure
    from stages.training.machine import quiet_lightning
    from stages.training.resuming import Resuming

    quiet_lightning()
    module, splits, trunk = _made_ready(params, run, machine, labels, train, validation)
    own, steps = module.ranks, module.adapted.steps
    best = BestEpoch(run.task.SELECTION_METRIC, params.early_stopping)
    resuming = [Resuming(store, best, own)] if store else []
    progress = [Progress(best.metric, params.epochs)] if own.speaks else []
    trainer = _trainer(params, run, machine, [best, *progress, *resuming], own, tracked)
    rows = {"train": splits.train, "validation": splits.validation}
    module.trunk = params.keep_frozen and steps and trunk.fits(rows)
    try:
        for callback in resuming:
            callback.restore(trainer, module, splits)
        if not steps:
            measure(trainer, module, splits, best)
        elif len(best.curve) < params.epochs and not best.stops():
            if module.trunk:
                trunk.keep(rows, machine, store.folder if store else None, own)
            module.memory = _expect(params, machine, module, splits)
            if own.sharded:
                _clear(module)
            if params.gradient_checkpointing:
                _recompute_layers(module.model, run, cached=module.adapted.cached)
            trainer.fit(module, datamodule=splits)
    except SystemExit:  # Lightning's answer to an interrupt
        raise KeyboardInterrupt from None
    finally:
        loggers.finish()
    if module.vocabulary:
        module.vocabulary.undo()
    ranks.leave(own)
    return module, best


def _made_ready(
    params: Finetune,
    run: Run,
    machine: Machine,
    labels: list[str],
    train: pa.Table,
    validation: pa.Table,
) -> tuple[FineTuning, Splits, Trunk]:
    """The model as the method trains it, its rows, and its frozen layers."""
    import lightning.pytorch as pl

    from stages.training import ranks, weights
    from stages.training.batching import is_typed, pad_id, targets
    from stages.training.data import Splits
    from stages.training.module import FineTuning
    from stages.training.trunk import Trunk
    from stages.training.vocabulary import Vocabulary

    pl.seed_everything(params.seed, verbose=False)  # python, numpy and torch, before the head
    model, adapted = weights.build(run, labels, run.method_params, params.dropout)
    # Without steps there is nothing to share.
    devices = params.devices if adapted.steps else 1
    own = ranks.join(devices, machine.device, params.strategy)
    if own.sharded:
        ranks.check(model, adapted)
    model.train()  # from_pretrained leaves it in evaluation mode, and so would Lightning
    trunk = Trunk(model)
    trunk.calm()
    first_position = _prepare(model, machine.device)
    splits = Splits(
        train,
        validation,
        batch_size=params.batch_size,
        seed=params.seed,
        pad_id=pad_id(model.config),
        # Where weights are shared out, ranks must compute as many parts.
        parts=1 if own.sharded else PARTS[machine.device],
        first_position=first_position,
        typed=is_typed(model.config),
        tokens=params.batch_tokens,
        pinned=machine.device == "cuda",
        ranks=own,
    )
    _check_budget(params, splits)
    how = optimization(params, run, len(splits.order()))
    learnt = run.task.learn(targets(train), labels, run.task_params.loss)
    if prior := learnt.pop("prior", None):
        weights.begin_at(model, prior)
    module = FineTuning(model, run, labels, learnt, how, adapted, own)
    module.packed = first_position is not None
    if adapted.start:
        adapted.start(_start(splits, learnt, params.seed, machine.device))
    if adapted.steps and not own.sharded:
        module.vocabulary = Vocabulary(model, adapted, splits.vocabulary())
    return module, splits, trunk


def _prepare(model: Any, device: str) -> int | None:
    """Have a model compute in the way that is fastest on the device; what comes back is
    `stages.training.packing.prepare`'s."""
    from stages.training import dropout, packing

    if device == "cpu":
        dropout.replace(model)
    first_position = packing.prepare(model)
    if first_position is None and device == "cpu":
        model.set_attn_implementation("eager")  # faster there than SDPA for short rows
    return first_position


def _start(splits: Splits, learnt: dict[str, list[float]], seed: int, device: str) -> Start:
    """What a method may use that sets weights from the training rows."""
    import numpy as np

    from stages.training.batching import Rows, targets

    train = splits.train
    rows = Rows(train.table, train.pad_id, train.parts, typed=train.first is not None)
    weight = np.array(learnt["class_weight"]) if "class_weight" in learnt else None
    return Start(rows, targets(train.table), weight, seed, device)


def _trainer(
    params: Finetune,
    run: Run,
    machine: Machine,
    callbacks: list[pl.Callback],
    own: Ranks,
    tracked: bool,
) -> pl.Trainer:
    import lightning.pytorch as pl

    from stages.training import loggers, ranks

    names = [run.task_name, run.method_name]
    return pl.Trainer(
        accelerator="gpu" if machine.device == "cuda" else "cpu",
        **ranks.strategy(own),
        precision="bf16-mixed" if machine.precision == "bf16-mixed" else "32-true",
        max_epochs=params.epochs,
        accumulate_grad_batches=params.accumulate,
        gradient_clip_val=params.clip_norm or None,
        callbacks=callbacks,
        logger=tracked
        and own.speaks
        and loggers.make(run.tracking, "-".join(names), names, parameters(params, run)),
        log_every_n_steps=10,
        enable_checkpointing=False,  # BestEpoch keeps the weights
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        default_root_dir=loggers.FOLDER,
    )


def _expect(
    params: Finetune, machine: Machine, module: FineTuning, splits: Splits
) -> memory.Estimate:
    """Say what memory training takes.

    Raises:
        UserError: the device has less.
    """
    import torch

    from stages.training import memory

    recomputed = params.gradient_checkpointing
    try:
        found = memory.estimate(
            module, splits, machine.device, machine.precision, recomputed=recomputed
        )
    except torch.OutOfMemoryError:
        raise UserError(
            "params.yaml: run.method: the weights and four of the longest row do not fit the "
            "device, where memory is estimated; take a smaller base, or lower tokenize.max_length"
        ) from None
    tokens = params.batch_tokens
    batch = (params.batch_size, "batch_size") if tokens is None else (tokens, "batch_tokens")
    ranks = module.ranks
    free = memory.require(found, *batch, machine.device, ranks.count)
    if ranks.speaks:
        each = " each" if ranks.count > 1 else ""
        told = f"training: takes about {found}{each}; {free / memory.GB:.1f} GB are free{each}"
        print(told, file=sys.stderr)
    return found


def _clear(module: FineTuning) -> None:
    """Take the model off the device, to which each rank will bring its share."""
    import torch

    module.cpu()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _recompute_layers(model: Any, run: Run, *, cached: bool) -> None:
    """
    Raises:
        UserError: transformers cannot do so with the base's architecture, or for the method.
    """
    from stages.training import packing

    if cached:
        raise UserError(
            "params.yaml: finetune.gradient_checkpointing: transformers computes layers again "
            f"without the keys and values of {run.method_name}, got true; write false"
        )
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise UserError(
            "params.yaml: finetune.gradient_checkpointing: transformers' "
            f"{type(model).__name__} does not support it, got true; write false"
        )
    model.activation_checkpointing_enable(
        {"use_reentrant": False, "context_fn": packing.recomputing}
    )
    # Which transformers wants of embeddings for reentrant checkpoints alone; it would send
    # gradients through frozen layers.
    model.disable_input_require_grads()


def _check_budget(params: Finetune, splits: Splits) -> None:
    """
    Raises:
        UserError: a batch of `batch_tokens` would be too small for the longest row.
    """
    longest = max(int(rows.lengths.max()) for rows in (splits.train, splits.validation))
    if params.batch_tokens is not None and params.batch_tokens < 2 * longest:
        raise UserError(
            f"params.yaml: finetune.batch_tokens: the longest row has {longest} tokens, got "
            f"{params.batch_tokens}; write at least {2 * longest}, or lower tokenize.max_length"
        )


def optimization(params: Finetune, run: Run, batches: int) -> Optimization:
    """The plan of steps for so many batches an epoch; the method may bring its learning rate."""
    per_epoch = steps_per_epoch(batches, params.accumulate)
    return Optimization(
        learning_rate=run.method_params.learning_rate or params.learning_rate,
        weight_decay=params.weight_decay,
        warmup_steps=round(params.warmup_epochs * per_epoch),
        steps=params.epochs * per_epoch,
        schedule=params.schedule,
        seed=params.seed,
    )


def diverged(best: BestEpoch) -> bool:
    """Is the loss no number, even in the best epoch?"""
    return not math.isfinite(best.curve[best.epoch - 1]["validation_loss"])


def require_numbers(
    best: BestEpoch,
    run: Run,
    module: FineTuning,
    rows: int,
    store: Checkpoints,
    key: str | None = None,
) -> None:
    """
    Args:
        rows: of the validation split.
        store: whose checkpoints are removed before a refusal, for nobody goes on from there.
        key: of the learning rate, with its file; None: that of params.yaml.

    Raises:
        UserError: training diverged, or the metric that picks the epoch is not defined.
    """
    if diverged(best):
        own = run.method_params.learning_rate
        of = f"methods.{run.method_name}" if own else "finetune"
        key = key or f"params.yaml: {of}.learning_rate"
        rate = module.how.learning_rate
        store.remove()
        raise UserError(
            f"{key}: training diverged: the loss is no number from epoch "
            f"{best.epoch} on, got {rate:g}; write a lower one, such as {rate / 10:g}"
        )
    if not math.isfinite(best.curve[best.epoch - 1][f"validation_{best.metric}"]):
        store.remove()
        raise UserError(
            f"data/prepared/validation.parquet: {best.metric} is no number on its {rows} rows, so "
            "no epoch can be chosen; give that split more rows, with targets that differ "
            "(prepare.validation in params.yaml, or your own split)"
        )


def parameters(params: Finetune, run: Run) -> dict[str, Any]:
    """Those that shape what is trained, as JSON."""
    return {
        "finetune": params.model_dump(mode="json"),
        "method": run.method_params.model_dump(mode="json"),
        "loss": run.task_params.loss.model_dump(mode="json"),
    }


def outcome(
    params: Finetune, run: Run, machine: Machine, module: FineTuning, best: BestEpoch, rows: int
) -> dict[str, Any]:
    """What training did, as JSON: a function of the inputs, so without times.

    Args:
        rows: of the training split.
    """
    from stages.training import weights

    sizes = [(p.numel(), p.requires_grad) for p in module.model.parameters()]
    chosen = best.curve[best.epoch - 1]
    prefix = "validation_"
    return {
        "task": run.task_name,
        "method": run.method_name,
        "epochs": len(best.curve),
        "best_epoch": best.epoch,
        "selected_by": best.metric,
        "steps": int(best.curve[-1]["step"]),
        "examples": len(best.curve) * rows,
        "tokens": module.tokens,
        "batches": "packed" if module.packed else "padded",
        "frozen_layers": "kept" if module.trunk else "computed",
        "padding_share": round(1 - module.tokens / module.padded, 4),
        "trained_parameters": sum(size for size, trained in sizes if trained),
        "parameters_total": sum(size for size, _ in sizes),
        "stored_bytes": weights.size(best.weights.values()),
        "memory_bytes": module.memory.of_training() if module.memory else None,
        "learning_rate": module.how.learning_rate if module.adapted.steps else None,
        "validation": finite({k.removeprefix(prefix): v for k, v in chosen.items() if prefix in k}),
        "device_class": machine.device_class(),
        "parameters": parameters(params, run),
        "libraries": versions((*LIBRARIES, *run.method.LIBRARIES)),
    }
