"""Fine-tuning of the base on the training split, by Lightning.

Run: `python -m stages finetune`, or `dvc repro`.
"""

from __future__ import annotations

import csv
import time

from stages.artifacts import read_arrow, read_json, replacing, write_json
from stages.params import Run
from stages.training import fitting
from stages.training.fitting import LIBRARIES, Finetune
from stages.training.machine import configure

__all__ = ["LIBRARIES", "Finetune", "run"]


def run(params: Finetune, run: Run) -> dict[str, object]:
    """Write models/finetuned/, results/training.json and results/learning_curve.csv.

    Raises:
        UserError: training diverged, or cannot be done with these parameters.
    """
    params = fitting.of_method(params, run)
    machine = configure(params.device, params.precision, params.threads)
    labels = read_json("data/prepared/labels.json")
    train, validation = (
        read_arrow(f"data/tokenized/{split}.arrow") for split in ("train", "validation")
    )
    store = fitting.checkpoints(params, run, machine)
    started = time.perf_counter()
    module, best = fitting.fit(params, run, machine, labels, train, validation, store)
    seconds = time.perf_counter() - started
    fitting.require_numbers(best, run, module, len(validation), store)

    from stages.training import weights

    weights.save(best.weights, run, labels, machine, module.learnt | best.settled)
    with replacing("results/learning_curve.csv") as path, open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(best.curve[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(best.curve)
    outcome = fitting.outcome(params, run, machine, module, best, len(train))
    write_json("results/training.json", outcome)
    store.remove()
    tokens = module.tokens - module.resumed  # of this process
    facts: dict[str, object] = {}
    if module.memory:
        facts["estimated_memory_mb"] = round(module.memory.total / 2**20)
    if machine.device == "cuda":
        import torch

        facts["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    rows = len(best.curve) * len(train) * tokens / module.tokens
    return {
        "training_seconds": round(seconds, 2),
        "checkpoint_seconds": round(store.spent, 2),
        "examples_per_second": round(rows / seconds, 1),
        "tokens_per_second": round(tokens / seconds, 1),
        **facts,
    }
