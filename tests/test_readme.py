"""What the README says, held against what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import tasks, when_to_finetune
from stages import check, plugins

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_results_table_is_the_measured_one() -> None:
    measured = json.loads((ROOT / "benchmarks/accuracy.json").read_text())["accuracy"]
    rows = re.findall(r"^\| (.+?) \| (0\.\d+) \((0\.\d+) to (0\.\d+)\) \|", README, re.MULTILINE)
    assert {name: tuple(map(float, numbers)) for name, *numbers in rows} == {
        name: tuple(round(value[key], 3) for key in ("mean", "low", "high"))
        for name, value in measured.items()
    }
    assert measured["fine-tuned"]["mean"] >= 0.80
    found = json.loads((ROOT / "benchmarks/accuracy.json").read_text())["difference"]
    told = f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
    assert found["low"] > 0 and told in README


@pytest.mark.parametrize("target", re.findall(r"`make (\w+)", README))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", re.findall(r"`((?:stages|workflow|tests|data)/[\w./]+)`", README))
def test_files_exist(path: str) -> None:
    made_by_stages = ("data/prepared", "data/tokenized", "data/base")
    assert (ROOT / path).exists() or path.startswith(made_by_stages)


def test_every_stage_and_plug_in_is_named() -> None:
    text = README + (ROOT / "params.yaml").read_text()
    for name in (*check.STAGES, *plugins.names("tasks"), *plugins.names("methods")):
        assert name in text


def test_the_studies_tables_are_the_measured_ones() -> None:
    studies = json.loads((ROOT / "benchmarks/when_to_finetune.json").read_text())
    lines = README.splitlines()
    for found in studies.values():
        assert set(when_to_finetune.table(found)) <= set(lines)
    assert set(when_to_finetune.rules(studies)) <= set(lines)


def test_the_speed_table_is_the_measured_one() -> None:
    measured = json.loads((ROOT / "benchmarks/training.json").read_text())
    columns = ("full", "head_only", "evaluation")
    for name in {name for part in columns for name in measured[part]["variants"]}:
        cells = []
        for part in columns:
            ratio = measured[part]["variants"].get(name, {}).get("ratio")
            cells.append(f"{ratio['median']:.1f}" if ratio else "")
        shown = "**finetune**" if name == "finetune" else name
        assert re.sub(" +", " ", f"| {shown} | {' | '.join(cells)} |\n") in re.sub(
            " +", " ", README
        )


def test_the_accuracies_beside_it_are_the_measured_ones() -> None:
    quality = json.loads((ROOT / "benchmarks/training.json").read_text())["quality"]
    (ours, theirs) = quality["mean"].values()
    error = quality["standard_error_of_difference"]
    assert ours > theirs - error
    told = f"{ours:.3f} against {theirs:.3f} (standard error of the difference {error:.3f})"
    assert told in re.sub(r"\s+", " ", README)


def test_the_table_of_tasks_is_the_measured_one() -> None:
    for name, found in json.loads((ROOT / "benchmarks/tasks.json").read_text()).items():
        assert tasks.row(name, found) in README.splitlines()
