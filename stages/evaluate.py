"""The fine-tuned model on the test split: predictions and metrics with intervals.

Run: `python -m stages evaluate`, or `dvc repro`.
"""

from __future__ import annotations

import csv
import time

from pydantic import Field

from stages.artifacts import (
    read_arrow,
    read_parquet,
    replacing,
    write_json,
    write_parquet,
)
from stages.params import Run, Section
from stages.pins import versions
from stages.statistics import bootstrap, described
from stages.training.machine import configure

LIBRARIES = ("torch", "transformers", "safetensors", "numpy", "pandas", "pyarrow")


class Evaluate(Section):
    batch_size: int = Field(ge=1, description="rows at a time")
    bootstrap: int = Field(ge=100, description="samples for the intervals")
    seed: int = Field(ge=0, description="of the bootstrap")


def run(params: Evaluate, run: Run) -> dict[str, object]:
    """Write results/predictions.parquet, metrics.json, details.json and predicted.csv."""
    from stages.training import weights
    from stages.training.predicting import predict

    about = weights.description()
    machine = configure(threads=about["device_class"]["threads"])
    table = read_arrow("data/tokenized/test.arrow")
    model = weights.load(run)
    started = time.perf_counter()
    logits = predict(model, table, params.batch_size, machine.device)
    seconds = time.perf_counter() - started

    labels, task = about["labels"], run.task
    target, scores = table["target"].to_numpy(), task.scores(logits)
    rows = read_parquet("data/prepared/test.parquet")
    rows["predicted"] = task.decide(scores, labels)
    rows["scores"] = list(scores.astype("float64"))
    rows["logits"] = list(logits)  # `export` compares its own with them
    write_parquet("results/predictions.parquet", rows)
    with replacing("results/predicted.csv") as path, open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["actual", "predicted"])
        writer.writerows(zip(rows[task.TARGET], rows["predicted"], strict=True))
    write_json("results/details.json", task.details(target, scores, labels))
    metrics = bootstrap(task.metrics, target, scores, params.bootstrap, params.seed)
    content = described(
        {"main_metric": task.MAIN_METRIC, "metrics": metrics},
        len(rows),
        params.bootstrap,
        params.seed,
    )
    content["device_class"] = about["device_class"]
    content["parameters"] = params.model_dump(mode="json")
    content["libraries"] = versions(LIBRARIES)
    write_json("results/metrics.json", content)
    return {"examples_per_second": round(len(rows) / seconds, 1)}
