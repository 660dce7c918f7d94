"""A tiny model, its weights drawn instead of trained, evaluated and ready to export: for tests.

In the current folder: data/base, models/finetuned, and under results/ what `export` reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stages import check, plugins, tokenize
from stages.artifacts import read_json, sha256, write_json
from stages.params import Run
from stages.training import weights
from stages.training.machine import Machine, configure
from stages.training.predicting import predict
from tests import fabricate, tiny
from tests.project import ROOT

LABELS = ["negative", "positive"]
MAX_LENGTH = 12


def ready(method: str = "full", rows: int = 40) -> tuple[Any, Run]:
    """Write the files; the sections that `export.run` takes."""
    configure("cpu", "float32", 1)
    tiny.make_base("data/base")
    fabricate.write(Path())
    base = read_json("results/base.json")
    for name in base["files"]:
        base["files"][name] |= {"sha256": sha256(Path("data/base") / name)}
    write_json("results/base.json", base)
    params, run = sections(method)
    torch.manual_seed(0)
    model, _ = weights.build(run, LABELS, run.method_params)
    drawn = {
        name: weight + 0.1 * torch.randn_like(weight)
        for name, weight in weights.trained(model).items()
    }
    weights.save(drawn, run, LABELS, Machine("cpu", "float32", 1, "any"))
    _evaluate(run, rows)
    tokens = {"max_length": MAX_LENGTH, "splits": {}, "parameters": {}, "libraries": {}}
    write_json("results/tokens.json", tokens)
    return params, run


def sections(method: str) -> tuple[Any, Run]:
    """The shipped parameters, with another method."""
    params = check.load(ROOT / "params.yaml")
    whole: Any = check.model().model_validate(check.read(ROOT / "params.yaml"))
    changed = {
        "method": plugins.load("methods", method),
        "method_name": method,
        "method_params": getattr(whole.methods, method).model_copy(
            update=tiny.METHODS.get(method, {})
        ),
    }
    return params.sections["export"], Run(**vars(params.run) | changed)


def _evaluate(run: Run, rows: int) -> None:
    draw = np.random.default_rng(0)
    texts = [
        " ".join(draw.choice(tiny.WORDS[:44], draw.integers(1, 20)).tolist()) for _ in range(rows)
    ]
    frame = pd.DataFrame({"text": texts, "label": [LABELS[i % 2] for i in range(rows)]})
    tokenizer = tokenize.load_tokenizer(Path("data/base/tokenizer.json"))
    table, _ = tokenize.encode(tokenizer, frame, MAX_LENGTH, run, LABELS)
    frame["id"] = [f"{number:016x}" for number in range(rows)]
    frame["logits"] = list(predict(weights.load(run), table, 8, "cpu"))
    frame["scores"] = [*run.task.scores(np.stack(frame["logits"].tolist()), None, LABELS, {})]
    frame.to_parquet("results/predictions.parquet")
