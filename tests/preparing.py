"""A small project to prepare in the current folder: for tests."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from stages import params as parameters
from stages import prepare
from stages.preparing import reading
from stages.tasks import classification

SECTION: dict[str, Any] = {
    "path": "x.csv",
    "encoding": "auto",
    "delimiter": "auto",
    "quoting": "auto",
    "header": None,
    "split": None,
    "group": None,
    "validation": 0.2,
    "test": 0.2,
    "seed": 0,
    "near_duplicates": 0,
    "keep": [],
}
OUTPUTS = ("data/prepared", "results")
Columns = dict[str, list[str]]


def run(data: dict[str, Any] | None = None, **section: Any) -> dict[str, Any]:
    """Prepare in the current folder; the content of results/data.json."""
    task = classification.Params(
        data=classification.Data(
            **{"text": "text", "label": "label", "labels": [], "first_of": None} | (data or {})
        ),
        loss=classification.Loss(label_smoothing=0.0, class_weights="none"),
    )
    chosen: dict[str, Any] = {"task_name": "classification", "task": classification}
    chosen |= {"method_name": "full", "method": None, "method_params": None}
    prepare.run(
        prepare.Prepare(**SECTION | section),
        parameters.Run(**chosen, task_params=task, tracking=None),
    )
    found: dict[str, Any] = json.loads(Path("results/data.json").read_text(encoding="utf-8"))
    return found


def rows(count: int = 60) -> Columns:
    return {
        "text": [f"text number {i}" for i in range(count)],
        "label": [("negative", "positive")[i % 2] for i in range(count)],
    }


def text(columns: Columns, delimiter: str = ",", header: bool = True) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerows([columns] if header else [])
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


def write(columns: Columns, name: str = "x.csv") -> None:
    Path(name).write_text(text(columns), encoding="utf-8")


def with_rows(*more: tuple[str, str]) -> Columns:
    """60 good rows, on lines 2 to 61, and `more` below them."""
    columns = rows()
    return {
        "text": [*columns["text"], *(t for t, _ in more)],
        "label": [*columns["label"], *(label for _, label in more)],
    }


def reasons() -> dict[int, str]:
    rejected = pd.read_parquet("data/prepared/rejected.parquet")
    return dict(zip(rejected["line"], rejected["reason"], strict=True))


def splits() -> dict[str, str]:
    """The split of each text."""
    found: dict[str, str] = {}
    for split in reading.SPLITS:
        frame = pd.read_parquet(f"data/prepared/{split}.parquet")
        found |= dict.fromkeys(frame["text"], split)
    return found


def written() -> list[str]:
    """Those of the outputs that exist, whole or in part; results/run/ is none."""
    found = [out for out in OUTPUTS if Path(out).exists()]
    if "results" in found and {path.name for path in Path("results").iterdir()} <= {"run"}:
        found.remove("results")
    return found
