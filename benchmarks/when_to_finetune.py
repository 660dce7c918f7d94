"""The study of when to fine-tune on the shipped reviews, as it is by default.

Run: `python -m benchmarks.when_to_finetune` (22 minutes on two cores that other work shared), or
with the folder of a project where the study has run, whose figures are then taken. Writes
benchmarks/when_to_finetune.json; minutes are those of that machine, whatever else ran on it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from stages.artifacts import read_json, write_json

PIPELINE = "workflow/studies/when_to_finetune/dvc.yaml"
OUTPUT = Path("benchmarks/when_to_finetune.json")


def main(arguments: list[str]) -> int:
    if arguments:
        write_json(OUTPUT, figures(Path(arguments[0])))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", ".", folder], check=True)
        subprocess.run(["snakemake", "--config", f"pipeline={PIPELINE}"], cwd=folder, check=True)
        write_json(OUTPUT, figures(Path(folder)))
    return 0


def figures(project: Path) -> dict[str, Any]:
    """What the study found there, with the minutes that a run took on average."""
    found = read_json(project / "results/studies/when_to_finetune.json")
    minutes = read_json(project / "results/run/studies/when_to_finetune.json")
    return {"reviews": found | {"minutes": minutes}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
