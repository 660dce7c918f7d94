"""The fine-tuned model on the test split: predictions and metrics with intervals.

Run: `python -m stages evaluate`, or `dvc repro`.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from stages import measures
from stages.artifacts import read_arrow, read_parquet, replacing, write_json, write_parquet
from stages.params import Run, Section
from stages.pins import versions
from stages.slicing import slicings
from stages.statistics import Metrics, bootstrap, described
from stages.training.generating import Decoding
from stages.training.machine import configure

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

LIBRARIES = (
    "torch", "transformers", "safetensors", "numpy", "pandas", "pyarrow", "tokenizers", "sacrebleu",
    "rouge-score",
)  # fmt: skip
OWN = ("id", "file", "line")  # columns of prepared rows beside the task's and those kept


class Evaluate(Section):
    batch_size: int = Field(ge=1, description="rows at a time")
    bootstrap: int = Field(ge=100, description="samples for the intervals")
    seed: int = Field(ge=0, description="of the bootstrap")
    min_slice: int = Field(ge=1, description="rows of a value that is a slice of its own")
    decoding: Decoding


def run(params: Evaluate, run: Run) -> dict[str, object]:
    """Write results/predictions.parquet, metrics.json, details.json, and for plots predicted.csv
    and reliability.csv."""
    from stages.training import weights
    from stages.training.batching import targets
    from stages.training.predicting import predict

    about = weights.description()
    labels = about["labels"]
    machine = configure(threads=about["device_class"]["threads"])
    table = read_arrow("data/tokenized/test.arrow")
    model = weights.load(run)
    started = time.perf_counter()
    logits = predict(model, table, params.batch_size, machine.device, run.task)
    rows = read_parquet("data/prepared/test.parquet")
    learnt = model.config.finetuning_learnt
    scores = run.task.scores(logits, table, labels, learnt).astype("float64")
    target = targets(table)
    if run.task.GENERATIVE:
        written = _written(params, model, table, machine.device)
        scores = np.hstack([scores, run.task.judged(rows, written)])
    else:
        written = run.task.decide(logits, table, labels, learnt)
    seconds = time.perf_counter() - started
    predicted = rows.assign(predicted=written)
    details = _details(params, run, predicted, lengths(table), target, scores, labels)
    write_json("results/details.json", described(details, len(rows), params.bootstrap, params.seed))
    own: Any = of_rows(logits, table)
    predicted["logits"] = own  # `export` compares its own with them
    _write_predictions(run, predicted, scores, details)
    content = described(
        {
            "main_metric": run.task.MAIN_METRIC,
            "lower_is_better": run.task.LOWER_IS_BETTER,
            "metrics": _bootstrap(params, measures.of(run.task), target, scores),
        },
        len(rows),
        params.bootstrap,
        params.seed,
    )
    content["device_class"] = about["device_class"]
    content["parameters"] = params.model_dump(mode="json")
    content["libraries"] = versions(LIBRARIES)
    write_json("results/metrics.json", content)
    return {"examples_per_second": round(len(rows) / seconds, 1)}


def _written(params: Evaluate, model: Any, table: pa.Table, device: str) -> list[str]:
    """The text that a generative model writes for each row."""
    from tokenizers import Tokenizer

    from stages.training import generating, weights

    found = generating.write(model, table, params.decoding, params.batch_size, device)
    return generating.texts(found, Tokenizer.from_file(str(weights.BASE / "tokenizer.json")))


def lengths(table: pa.Table) -> np.ndarray:
    """Tokens of each row [rows]; those that windows of a row share count in each."""
    from stages.training.batching import firsts

    offsets = table["input_ids"].combine_chunks().offsets.to_numpy()
    return np.add.reduceat(np.diff(offsets), firsts(table))


def of_rows(logits: np.ndarray, table: pa.Table) -> list[np.ndarray]:
    """Logits of the first example of each row, flat."""
    from stages.training.batching import firsts

    if len(logits) == len(table):
        return [*logits[firsts(table)]]
    offsets = table["input_ids"].combine_chunks().offsets.to_numpy()
    return [logits[offsets[i] : offsets[i + 1]].ravel() for i in firsts(table)]


def _bootstrap(
    params: Evaluate, metrics: Metrics, target: np.ndarray, scores: np.ndarray
) -> dict[str, Any]:
    return bootstrap(metrics, target, scores, params.bootstrap, params.seed, measures.REASONS)


def _details(
    params: Evaluate,
    run: Run,
    rows: pd.DataFrame,
    lengths: np.ndarray,
    target: np.ndarray,
    scores: np.ndarray,
    labels: list[str],
) -> dict[str, Any]:
    """Tables, matrices and curves of the task, and the slices."""
    task = run.task

    def slice_metrics(part: np.ndarray) -> dict[str, Any]:
        return _bootstrap(params, task.metrics, target[part], scores[part])

    own = {*OWN, *task.TEXTS, task.TARGET, *task.OTHERS, "predicted"}
    kept = [column for column in rows.columns if column not in own]
    found = slicings(rows, kept, lengths, params.min_slice)
    details = task.details(
        measures,
        lambda metrics: _bootstrap(params, metrics, target, scores),
        target,
        scores,
        labels,
        rows,
    )
    return details | {"slices": [slicing.measured(slice_metrics) for slicing in found]}


def _write_predictions(
    run: Run, rows: pd.DataFrame, scores: np.ndarray, details: dict[str, Any]
) -> None:
    write_parquet("results/predictions.parquet", rows.assign(scores=[*scores]))
    pairs = zip(rows[run.task.TARGET], rows["predicted"], strict=True)
    if run.task.GENERATIVE:  # texts are confused with no other one
        pairs = zip((), (), strict=True)
    _write_csv("results/predicted.csv", ["actual", "predicted"], pairs)
    points = [
        [point["x"], point["y"]["value"], point["rows"]]
        for curve in details.get("curves", [])
        for point in curve["points"]
    ]
    _write_csv("results/reliability.csv", ["confidence", "accuracy", "rows"], points)


def _write_csv(path: str, header: list[str], lines: Iterable[Iterable[Any]]) -> None:
    with replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
