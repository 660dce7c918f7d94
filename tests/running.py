"""All stages of one task on a tiny base, in the current process and folder: for tests."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from stages import check
from tests import tiny
from tests.project import ROOT

SMALL = {
    "fetch_model.source": "folder",
    "fetch_model.sha256": {},
    "finetune.epochs": 2,
    "finetune.warmup_epochs": 0.5,
    "finetune.threads": 1,
    "finetune.precision": "float32",
    "finetune.device": "cpu",
    "finetune.learning_rate": 0.01,
    "tokenize.max_length": 24,
    "tokenize.stride": 8,
    "tokenize.max_truncated": 1.0,
    "evaluate.bootstrap": 100,
    "baseline.bootstrap": 100,
    "tracking.wandb": "disabled",
    "prepare.keep": [],
}


def ready(folder: Path, task: str, raw: str, name: str, **changes: Any) -> None:
    """Write what a run needs into `folder`: the shipped parameters with those of `SMALL` and
    `changes` (keys with __ for dots), a tiny base, and the raw file."""
    (folder / "stages").symlink_to(ROOT / "stages")
    for file in ("dvc.yaml", "pyproject.toml"):
        (folder / file).write_bytes((ROOT / file).read_bytes())
    make = tiny.make_causal if task == "generation" else tiny.make_base
    make(folder / "data/local_base")
    path = folder / "data/raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(raw, encoding="utf-8")
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    put(folder, {"run.task": task, "prepare.path": f"data/raw/{name}"} | SMALL | dotted)


def put(folder: Path, values: dict[str, Any]) -> None:
    """Set keys of params.yaml, given with dots."""
    yaml, path = YAML(), folder / "params.yaml"
    content = yaml.load(path.read_text())
    for key, value in values.items():
        *way, last = key.split(".")
        section = content
        for part in way:
            section = section[part]
        assert last in section, key
        section[last] = value
    with path.open("w") as out:
        yaml.dump(content, out)


def loaded(text: str) -> Any:
    """The content of YAML as plain values."""
    return YAML(typ="safe", pure=True).load(text)


def run(*stages: str) -> None:
    """Run the stages named, or all, in the current folder."""
    params = check.load("params.yaml")
    for stage in stages or check.STAGES:
        importlib.import_module(f"stages.{stage}").run(params.sections[stage], params.run)


def json_of(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def words(draw: np.random.Generator, size: int) -> list[str]:
    return [str(word) for word in draw.choice(tiny.WORDS[:44], size)]
