"""The recipes of workflow/recipes/: whole, valid, and on slices of the data that they are for."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import validate

from stages import check
from stages.params import read
from stages.preparing import conll, hub, squad
from tests import running
from tests.project import ROOT
from workflow import recipe

FOLDER = ROOT / recipe.FOLDER
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
SHIPPED = ["instructions"]  # their data and base ship with the project
SHARED = ROOT.parent / "shared/data"
Row = dict[str, Any]


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("at_root")
def test_a_recipe_is_a_whole_and_valid_params_yaml(name: str) -> None:
    params, problems = check.examine(FOLDER / f"{name}.yaml")
    assert problems == []
    validate(
        read(FOLDER / f"{name}.yaml"),
        json.loads(Path("workflow/schemas/params.schema.json").read_text()),
    )
    if name in SHIPPED:
        return
    section = params.sections["prepare"]
    pointer = hub.pointer(section.path)
    assert params.sections["export"].datasets == [pointer.dataset]
    columns = set(params.run.task.columns(params.run.task_params.data).values())
    assert set(pointer.columns) <= columns | {section.group}


def test_each_pointer_has_its_recipe_and_its_line_in_the_table() -> None:
    pointers = {f"{name}.hub.yaml" for name in NAMES if name not in SHIPPED}
    assert {file.name for file in (FOLDER / "data").iterdir()} == pointers
    text = (FOLDER / "README.md").read_text()
    assert [name for name in NAMES if f"[{name}.yaml]({name}.yaml)" not in text] == []


def test_a_recipe_follows_params_yaml_and_keeps_what_it_chose() -> None:
    own, shipped = (FOLDER / "sst2.yaml").read_text(), (ROOT / "params.yaml").read_text()
    changed = shipped.replace("  epochs: 4 ", "  new_key: 7\n  epochs: 9 ")
    changed = changed.replace("  min_slice: 20 ", "  other_name: 20 ")
    after = recipe.in_step(own, changed)
    content, before = running.loaded(after), running.loaded(own)
    assert after.startswith("# SST-2: ")
    assert content["finetune"].pop("new_key") == 7
    assert content["evaluate"].pop("other_name") == before["evaluate"].pop("min_slice") == 20
    assert content == before
    assert recipe.in_step(after, shipped) == recipe.in_step(own, shipped)


# Slices as the pointers would give them: columns by the names that the tasks read.


def _banking77(split: str) -> Iterator[Row]:
    with open(SHARED / f"banking77/{split}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # Of every class as many rows.
    rows.sort(key=lambda row: row["category"])
    seen: dict[str, int] = {}
    for row in rows:
        seen[row["category"]] = seen.get(row["category"], 0) + 1
        if seen[row["category"]] <= 4:
            yield {"text": row["text"], "label": row["category"]}


def _goemotions(split: str) -> Iterator[Row]:
    folder = SHARED / "goemotions/original"
    names = (folder / "labels.txt").read_text(encoding="utf-8").split()
    name = "dev" if split == "validation" else split
    for line in (folder / f"{name}.tsv").read_text(encoding="utf-8").splitlines():
        text, labels, _ = line.split("\t")
        yield {"text": text, "labels": [names[int(label)] for label in labels.split(",")]}


def _wnut17(split: str) -> Iterator[Row]:
    files = {
        "train": "wnut17train.conll",
        "validation": "emerging.dev.conll",
        "test": "emerging.test.annotated",
    }
    file = SHARED / f"wnut17/{files[split]}"
    lines = io.StringIO(file.read_text(encoding="utf-8"))
    for _, values in conll.records(lines, file.name, ["tokens", "tags"], False):
        assert not isinstance(values, str)
        yield {"tokens": json.loads(values[0]), "tags": json.loads(values[1])}


def _stsb(split: str) -> Iterator[Row]:
    name = {"train": "2015/answers-forums", "test": "2016/question-question"}[split]
    for line in (SHARED / f"sts_open_subset/{name}.test.tsv").read_text("utf-8").splitlines():
        score, first, second = line.split("\t")[:3]
        if score:
            yield {"text": first, "text_pair": second, "value": float(score)}


def _squad(split: str) -> Iterator[Row]:
    """Eight questions of each article; answers as the hub's copy has them."""
    found = squad.articles((SHARED / "xquad/xquad.en.json").read_text(encoding="utf-8"))
    assert found
    part = found[:40] if split == "train" else found[40:]
    for number, article in enumerate(part):
        names = ["title", "context", "question", "answers"]
        for _, values in islice(squad.records([article], "xquad", names), 8):
            assert not isinstance(values, str)
            row: Row = dict(zip(names, values, strict=True)) | {"title": f"{split} {number}"}
            answers = json.loads(row["answers"])
            row["answers"] = {
                key: [one[key] for one in answers] for key in ("text", "answer_start")
            }
            yield row


def _squad2(split: str) -> Iterator[Row]:
    for number, row in enumerate(_squad(split)):
        yield row | ({"answers": {"text": [], "answer_start": []}} if number % 3 == 0 else {})


def _instructions(split: str) -> Iterator[Row]:
    """The first instance of each task that people have written."""
    for line in (SHARED / "self_instruct/seed_tasks.jsonl").read_text("utf-8").splitlines():
        task = json.loads(line)
        yield {"instruction": task["instruction"], **task["instances"][0]}


def _dolly(split: str) -> Iterator[Row]:
    for row in _instructions(split):
        yield {
            "instruction": row["instruction"],
            "context": row["input"],
            "response": row["output"],
            "category": "none",
        }


SLICES: dict[str, tuple[str, Callable[[str], Iterator[Row]]]] = {
    "alpaca": ("self_instruct", _instructions),
    "banking77": ("banking77", _banking77),
    "dolly": ("self_instruct", _dolly),
    "goemotions": ("goemotions", _goemotions),
    "squad": ("xquad", _squad),
    "squad2": ("xquad", _squad2),
    "stsb": ("sts_open_subset", _stsb),
    "wnut17": ("wnut17", _wnut17),
}
SMALL = {
    "fetch_model.source": "folder",
    "prepare.path": "data/raw/slice",
    "tokenize.max_length": 64,
    "tokenize.max_truncated": 1.0,
    "finetune.epochs": 1,
    "finetune.warmup_epochs": 0.0,
    "finetune.device": "cpu",
    "finetune.threads": 1,
    "evaluate.bootstrap": 100,
    "evaluate.decoding.max_new_tokens": 8,
    "baseline.bootstrap": 100,
    "tracking.wandb": "disabled",
}


@pytest.mark.parametrize("name", sorted(SLICES))
def test_a_slice_of_its_data_goes_all_the_way(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = SLICES[name]
    if not (SHARED / folder).is_dir():
        pytest.skip(f"needs ../shared/data/{folder}")
    monkeypatch.chdir(tmp_path)
    task = read(FOLDER / f"{name}.yaml")["run"]["task"]
    running.ready(tmp_path, task, "", "none.csv")
    shutil.copy(FOLDER / f"{name}.yaml", "params.yaml")
    # Where the questions are longer than half of what is read, windows cannot share so much.
    small = SMALL | ({"tokenize.stride": 8} if task == "question_answering" else {})
    running.put(tmp_path, small)
    Path("data/raw/slice").mkdir()
    count = 0
    for split in hub.pointer(str(FOLDER / f"data/{name}.hub.yaml")).splits:
        part = list(islice(rows(split), 400 if split == "train" else 120))
        count += len(part)
        text = "".join(json.dumps(row) + "\n" for row in part)
        Path(f"data/raw/slice/{split}.jsonl").write_text(text, encoding="utf-8")
    running.run()
    read_rows = running.json_of("results/data.json")["rows"]
    assert read_rows["read"] == count
    assert read_rows["kept"] > 0.9 * count
    assert running.json_of("results/training.json")["steps"] >= 1
    assert "labelled <b>" in Path("results/report.html").read_text(encoding="utf-8")


def test_the_causal_base_that_ships_learns_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the recipe, but for two epochs; of random weights the loss of a token is log(4096)."""
    monkeypatch.chdir(tmp_path)
    running.ready(tmp_path, "generation", "", "none.csv")
    shutil.copy(FOLDER / "instructions.yaml", "params.yaml")
    for name in ("novels", "raw/instructions.jsonl"):
        Path("data", name).symlink_to(ROOT / "data" / name)
    small = {"epochs": 2, "warmup_epochs": 0.2, "device": "cpu", "threads": 1}
    running.put(tmp_path, {f"finetune.{key}": value for key, value in small.items()})
    running.put(tmp_path, {"tracking.wandb": "disabled"})
    stages = ("fetch_model", "prepare", "tokenize", "finetune", "evaluate", "baseline", "export")
    running.run(*stages, "report")
    found = running.json_of("results/metrics.json")["metrics"]
    assert found["loss"]["value"] < 6 < np.log(4096)
    assert running.json_of("results/base.json")["license"] == "cc0-1.0"
