"""One self-contained HTML page that says what came out, of what, and how.

Run: `python -m stages report`, or `dvc repro`
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from pydantic import Field

from stages import artifacts, pins
from stages.errors import UserError
from stages.params import Run, Section

LIBRARIES = ("jinja2", "numpy", "pandas", "pyarrow")
OUTPUT = "results/report.html"
CURVE = "results/learning_curve.csv"
FILES = {
    "base": "results/base.json",
    "data": "results/data.json",
    "tokens": "results/tokens.json",
    "training": "results/training.json",
    "metrics": "results/metrics.json",
    "details": "results/details.json",
    "baseline": "results/baseline.json",
    "labels": "data/prepared/labels.json",
    "predictions": "results/predictions.parquet",
    "baseline_predictions": "results/baseline.parquet",
}


class Report(Section):
    """params.yaml: report"""

    title: str = Field(min_length=1, max_length=200, description="heading of the page")


def run(params: Report, run: Run) -> dict[str, object]:
    """Read what the other stages wrote, write results/report.html.

    Raises:
        UserError: files are missing or no JSON; all of them are named.
    """
    from stages.reporting import page

    content, problems = dict[str, Any](), list[str]()
    for name, path in FILES.items():
        read = artifacts.read_parquet if path.endswith(".parquet") else artifacts.read_json
        try:
            content[name] = read(path)
        except UserError as error:
            problems += error.problems
    if not Path(CURVE).exists():
        problems.append(f"{CURVE}: missing; run `dvc repro` to make it")
    if problems:
        raise UserError(*problems)
    with open(CURVE, encoding="utf-8", newline="") as file:
        curve = list(csv.DictReader(file, restval=""))
    inputs = page.Inputs(**content, curve=curve)
    own = {
        "parameters": params.model_dump(mode="json"),
        "libraries": pins.versions(LIBRARIES),
    }
    html = page.render(params.title, run.task, inputs, own)
    artifacts.write_text(OUTPUT, html)
    return {"bytes": len(html.encode())}
