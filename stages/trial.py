"""One trial: fine-tuning and evaluation in one process, of which only the numbers are kept.

Run: `python -m stages trial OUT.json KEY=VALUE...`, as the stages of workflow/trials/dvc.yaml do.

The best epoch is chosen on the validation split; so should be the best of many trials. Metrics of
the test split are recorded beside it, for what was chosen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stages.artifacts import read_arrow, read_json, sha256, write_json
from stages.params import Run, Section
from stages.training import fitting
from stages.training.checkpoints import TRIALS
from stages.training.drawing import draw
from stages.training.fitting import LIBRARIES, Finetune
from stages.training.machine import configure
from stages.training.schedule import steps_per_epoch
from stages.training.trials import figures, lacks, skipped

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LIBRARIES", "SECTIONS", "Job", "Trial", "run"]
SECTIONS = ("trial", "finetune", "evaluate")  # of params.yaml: its own, and those in its Job


class Trial(Section):
    rows: int | None = Field(ge=1, description="training rows drawn; null: all")
    draw: int = Field(ge=0, description="number of the draw")
    validation_rows: int | None = Field(ge=1, description="rows at most that choose the epoch")
    lacking: Literal["refuse", "skip"] = Field(description="where there are fewer rows")
    min_steps: int = Field(ge=0, description="optimizer steps; more epochs where there are fewer")
    threads: int = Field(ge=1)


@dataclass(frozen=True)
class Job:
    """What a trial is given beside its own section.

    `overrides` are the parameters that its command line names, `evaluate` is that section.
    """

    out: Path
    overrides: Mapping[str, Any]
    finetune: Finetune
    evaluate: Any


def run(params: Trial, run: Run, job: Job) -> dict[str, object]:
    """Write job.out: the metrics of both splits (none of training that diverged), and what training
    did; or, where rows are lacking and the trial is to be skipped, how many there are."""
    labels = read_json("data/prepared/labels.json")
    train, validation, test = (
        read_arrow(f"data/tokenized/{split}.arrow") for split in ("train", "validation", "test")
    )
    if lacks(params.rows, _count(train), params.lacking):
        write_json(job.out, skipped(job.overrides, run.task.MAIN_METRIC, _count(train)))
        return {"rows_in_all": _count(train)}
    machine = configure(job.finetune.device, job.finetune.precision, params.threads)
    train = renumbered(drawn(train, params.rows, params.draw))
    validation = renumbered(
        drawn(validation, _at_most(params.validation_rows, validation), params.draw)
    )
    finetune = fitting.of_method(job.finetune, run)
    section = lengthened(finetune, params, _batches(finetune, train))
    code = sha256(__file__)
    more = (params.model_dump(), code)
    store = fitting.checkpoints(section, run, machine, *more, prefix=TRIALS)
    started = time.perf_counter()
    module, best = fitting.fit(
        section, run, machine, labels, train, validation, store, tracked=False
    )
    seconds = time.perf_counter() - started

    outcome = fitting.outcome(section, run, machine, module, best, len(train))
    validation, tested = outcome.pop("validation"), dict[str, float]()
    if fitting.diverged(best):
        validation, outcome["diverged"] = {}, True
    else:
        about = {
            "labels": labels,
            "method_params": run.method_params.model_dump(mode="json"),
            "learnt": module.learnt | best.settled,
        }
        tested = _tested(about, best.weights, test, run, job, machine.device)
    write_json(
        job.out,
        {
            "overrides": dict(job.overrides),
            "main_metric": run.task.SELECTION_METRIC,
            "rows": {"train": len(train), "validation": len(validation), "test": len(test)},
            "validation": validation,
            "test": tested,
            "trial": params.model_dump(),
            **outcome,
        },
    )
    store.remove()
    return {"training_seconds": round(seconds, 2)}


def _tested(
    about: dict[str, Any], own: dict[str, Any], test: pa.Table, run: Run, job: Job, device: str
) -> dict[str, float]:
    """The metrics of a trained model on the test split.

    Args:
        about: as `weights.assemble` takes it; `own`: the trained weights.
    """
    from stages.training import weights
    from stages.training.batching import firsts, targets
    from stages.training.predicting import predict

    model = weights.assemble(run, about, own, job.out)
    logits = predict(model, test, job.evaluate.batch_size, device, run.task)
    learnt = model.config.finetuning_learnt
    scores = run.task.scores(logits, test, about["labels"], learnt).astype("float64")
    return figures(run.task.metrics(targets(test), scores, np.ones((1, len(firsts(test))))))


def drawn(table: pa.Table, rows: int | None, number: int) -> pa.Table:
    """The examples of the rows of a draw; `stages.training.drawing.draw` says which."""
    from stages.training.batching import firsts, targets

    of = np.searchsorted(firsts(table), np.arange(len(table)), side="right") - 1  # each example
    return table.take(np.flatnonzero(np.isin(of, draw(targets(table), rows, number))))


def renumbered(table: pa.Table) -> pa.Table:
    """With rows counted from 0 in the column `row`, where there is one: tasks count by it."""
    if "row" not in table.column_names:
        return table
    place = table.column_names.index("row")
    _, row = np.unique(table["row"].to_numpy(), return_inverse=True)
    field = table.schema.field("row")
    return table.set_column(place, field, [row.astype(field.type.to_pandas_dtype())])


def _at_most(rows: int | None, table: pa.Table) -> int | None:
    return None if rows is None else min(rows, _count(table))


def _count(table: pa.Table) -> int:
    """Rows, without torch, whose threads `configure` sets up."""
    return len(table["row"].unique()) if "row" in table.column_names else len(table)


def _batches(finetune: Finetune, train: pa.Table) -> int:
    from stages.training.batching import count

    lengths = np.diff(train["input_ids"].combine_chunks().offsets.to_numpy())
    return count(lengths, finetune.batch_size, finetune.batch_tokens)


def lengthened(finetune: Finetune, params: Trial, batches: int) -> Finetune:
    """The section with as many epochs of so many batches as `min_steps` needs; the warm-up's
    share stays. Trials run side by side, so each has one device."""
    per_epoch = steps_per_epoch(batches, finetune.accumulate)
    epochs = max(finetune.epochs, math.ceil(params.min_steps / per_epoch))
    alone = {"threads": params.threads, "devices": 1, "strategy": "ddp"}
    return fitting.lasting(finetune, epochs).model_copy(update=alone)
