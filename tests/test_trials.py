"""Trials: what they measure, what of them runs again, and the table of many."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from stages import check, leaderboard, runs, trial
from stages.errors import UserError
from stages.training import fitting
from stages.training.drawing import draw
from stages.training.machine import Machine
from stages.trials import overrides, plot, table
from tests import project as projects
from tests.project import Project

FILE = "workflow/trials/dvc.yaml"
GRID = {"learning_rate": [1e-4], "batch_size": [32], "seed": [0, 1]}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tiny project that has run its pipeline, and a grid of two trials by `dvc repro`."""
    project = projects.make(tmp_path_factory.mktemp("trials") / "first")
    project.edit(FILE, lambda content: content["vars"][1]["grid"].update(finetune=GRID))
    project.repro("evaluate")
    project.commit("before the trials")
    shutil.copytree(project.folder, project.folder.with_name("second"), symlinks=True)
    project("dvc", "repro", FILE)
    project.commit("trials")
    return project


@pytest.fixture
def project(first: Project) -> Iterator[Project]:
    yield first
    first("git", "checkout", "-q", "--", ".")
    first("git", "clean", "-fdq")


def outcome(project: Project, name: str = "grid/0.0001-32-0") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (project.folder / f"results/trials/{name}.json").read_text()
    )
    return content


def test_a_trial_measures_what_finetune_and_evaluate_measure(first: Project) -> None:
    found = outcome(first)
    folder = first.folder / "results"
    training, metrics = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("training", "metrics")
    )
    assert found["parameters"] == training["parameters"]
    assert found["validation"] == training["validation"]
    assert found["test"]["accuracy"] == pytest.approx(metrics["metrics"]["accuracy"]["value"])
    assert found["overrides"]["finetune.seed"] == 0
    assert not (folder / "run/checkpoints").exists() or not list(
        (folder / "run/checkpoints").iterdir()
    )


def test_both_engines_leave_the_same(first: Project) -> None:
    second = Project(first.folder.with_name("second"))
    output = second("snakemake", "--cores", "2", "--config", f"pipeline={FILE}")
    assert output.count("> python -m stages trial ") == 2
    # The order of the entries is not compared: where DVC looks at less than half of all stages,
    # as here, its own is that of a set, another one in each process.
    lock, board = "workflow/trials/dvc.lock", "results/trials/leaderboard.json"
    locks = [runs.lock((project.folder / lock).read_text()) for project in (first, second)]
    assert locks[0] == locks[1] and len(locks[0]) == 3
    assert (second.folder / board).read_bytes() == (first.folder / board).read_bytes()
    output = second("snakemake", "--config", "pipeline=workflow/trial/dvc.yaml", code=1)
    assert "--config pipeline=workflow/trial/dvc.yaml: no such file" in output


def test_only_new_trials_run(project: Project) -> None:
    """A value is added, another removed: its outcome stays, but not in the table."""
    grid = GRID | {"seed": [1, 2]}
    project.edit(FILE, lambda content: content["vars"][1]["grid"].update(finetune=grid))
    output = project("dvc", "repro", FILE)
    assert output.count("> python -m stages trial ") == 1
    board = json.loads((project.folder / "results/trials/leaderboard.json").read_text())
    values = [outcome(project, f"grid/0.0001-32-{seed}")["test"]["accuracy"] for seed in (1, 2)]
    assert board["best"]["test"]["mean"] == pytest.approx(np.mean(values))
    assert board["best"]["trials"] == 2


EDITS = {
    "report.title": ("Another", False),
    "finetune.learning_rate": (5e-4, False),  # the grid's stands in the command
    "finetune.threads": (2, False),
    "finetune.devices": (2, False),
    "finetune.strategy": ("fsdp", False),
    "methods.lora.rank": (4, False),
    "evaluate.bootstrap": (200, False),
    "finetune.epochs": (2, True),
    "trial.rows": (20, True),
}


@pytest.mark.parametrize("key", EDITS)
def test_a_trial_runs_again_for_what_shapes_it(project: Project, key: str) -> None:
    value, reruns = EDITS[key]
    project.set(key, value)
    status = json.loads(project("dvc", "status", "--json", FILE))
    assert bool(status) == reruns, status


def test_the_pipeline_is_not_disturbed(project: Project, tmp_path: Path) -> None:
    """In a clone without trials nobody misses them but who asks for all: that a plain `dvc pull`
    does not is seen in tests/test_pipeline.py."""
    project("git", "rm", "-rq", "results/trials", "workflow/trials/dvc.lock")
    project("git", "commit", "-qm", "no trials")
    project("git", "clone", "-q", ".", str(tmp_path / "clone"))
    project("git", "reset", "-q", "--hard", "HEAD~1")
    clone = Project(tmp_path / "clone")
    told = clone("dvc", "repro", "--dry", "--force")
    assert "Running stage 'report'" in told and "trial" not in told
    assert "trial" not in clone("dvc", "status", "dvc.yaml")
    assert "accuracy" in clone("dvc", "metrics", "show")
    assert clone("git", "status", "--porcelain") == ""


def test_what_changes_nothing_is_refused(project: Project) -> None:
    for words, said in {
        ("prepare.seed=1",): "prepare.seed: changes nothing in a trial by 'full'",
        ("methods.lora.rank=4",): "methods.lora.rank: changes nothing in a trial by 'full'",
        ("finetune.threads=2",): "write trial.threads",
        ("finetune.devices=2",): "a trial has one device; leave it out",
        ("finetune.strategy=fsdp",): "a trial has one device; leave it out",
        ("finetune.learning_rat=1",): "unknown key, got 1; did you mean 'learning_rate'?",
        ("finetune.seed",): "got 'finetune.seed'; write KEY=VALUE",
        ("trial.rows=100000",): "trial.rows: the training split has",
    }.items():
        output = project("python", "-m", "stages", "trial", "results/t.json", *words, code=2)
        assert said in output and "Traceback" not in output
    output = project("python", "-m", "stages", "trial", "t.json", code=2)
    assert "below results/" in output
    assert not (project.folder / "results/t.json").exists()


def test_overrides_stand_above_params_yaml() -> None:
    given = overrides.parse(
        ["finetune.learning_rate=3e-5", "run.method=lora", "methods.lora.rank=2"]
    )
    params = check.load(projects.ROOT / "params.yaml", given)
    assert params.sections["finetune"].learning_rate == 3e-5
    assert params.run.method_name == "lora"
    assert params.run.method_params.rank == 2
    assert params.run.method_params.alpha == 16


@pytest.mark.parametrize("number", range(3))
def test_draws_are_nested_and_stratified(number: int) -> None:
    target = np.repeat([0, 1, 2], [600, 300, 100]).astype(np.int32)
    drawn = [draw(target, rows, number) for rows in (8, 10, 100, 500, None)]
    for smaller, larger in itertools.pairwise(drawn):
        assert set(smaller) < set(larger)
    for rows, indices in zip((10, 100, 500, 1000), drawn[1:], strict=True):
        counts = np.bincount(target[indices])
        np.testing.assert_array_equal(counts, np.array([6, 3, 1]) * rows // 10)
    assert not np.array_equal(drawn[0], draw(target, 8, number + 1))


def test_any_target_can_be_drawn() -> None:
    for target in (np.linspace(0, 1, 50), np.ones((50, 2), np.int8)):
        chosen = draw(target, 20, 0)
        assert len(set(chosen)) == 20
        assert set(draw(target, 5, 0)) < set(chosen)


def test_a_row_is_drawn_with_all_its_windows() -> None:
    row = [0, 0, 1, 2, 2, 2, 3]
    table = pa.table({"row": row, "target": [number * 10.0 for number in row]})
    for number in range(4):
        some = trial.drawn(table, 2, number)
        chosen = set(some["row"].to_pylist())
        assert len(chosen) == 2
        assert some["row"].to_pylist() == [one for one in row if one in chosen]


def test_few_rows_train_as_long_as_they_must() -> None:
    params = check.load(projects.ROOT / "params.yaml")
    section = params.sections["finetune"].model_copy(update={"epochs": 4, "warmup_epochs": 0.4})
    wish = params.sections["trial"].model_copy(update={"min_steps": 50})
    assert trial.lengthened(section, wish, 1).epochs == 50
    assert trial.lengthened(section, wish, 1).warmup_epochs == pytest.approx(5.0)
    assert trial.lengthened(section, wish, 63).epochs == 4


def test_a_method_may_bring_its_epochs() -> None:
    """Those of random weights, with the warm-up's share; null leaves finetune.epochs."""
    params = check.load(projects.ROOT / "params.yaml", {"run.method": "from_scratch"})
    section = params.sections["finetune"].model_copy(update={"epochs": 4, "warmup_epochs": 0.4})
    found = fitting.of_method(section, params.run)
    assert (found.epochs, found.warmup_epochs) == (12, pytest.approx(1.2))
    plain = check.load(
        projects.ROOT / "params.yaml",
        {"run.method": "from_scratch", "methods.from_scratch.min_epochs": None},
    )
    assert fitting.of_method(section, plain.run) == section
    longer = section.model_copy(update={"epochs": 15})
    assert fitting.of_method(longer, params.run) == longer
    assert fitting.of_method(section, check.load(projects.ROOT / "params.yaml").run) == section


def test_checkpoints_of_a_trial_are_its_own(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    params = check.load()
    machine = Machine("cpu", "float32", 1, "any")
    folders = {
        fitting.checkpoints(params.sections["finetune"], params.run, machine, *more).folder
        for more in ([], [{"draw": 0}], [{"draw": 1}])
    }
    assert len(folders) == 3


def made(rate: float, seed: int, validation: float, test: float, size: int = 10) -> dict[str, Any]:
    return {
        "overrides": {"finetune.learning_rate": rate, "finetune.seed": seed},
        "main_metric": "accuracy",
        "validation": {"accuracy": validation},
        "test": {"accuracy": test},
        "trained_parameters": size,
    }


TRIALS = [
    made(1e-4, 0, 0.8, 0.70), made(1e-4, 1, 0.9, 0.72),
    made(2e-4, 0, 0.7, 0.99), made(2e-4, 1, 0.7, 0.99),
]  # fmt: skip


def test_the_table_is_ordered_by_validation_alone() -> None:
    board = table.as_json(table.tabulate(TRIALS))
    best, other = board["configurations"]
    assert best == board["best"]
    assert best["parameters"] == {"finetune.learning_rate": 1e-4}
    assert best["validation"] == {
        "mean": pytest.approx(0.85), "sd": pytest.approx(0.1 / 2**0.5), "low": 0.8, "high": 0.9,
    }  # fmt: skip
    assert other["validation"]["sd"] == 0
    rows = list(csv.DictReader(io.StringIO(table.as_csv(table.tabulate(TRIALS)))))
    assert [float(row["test_mean"]) for row in rows] == pytest.approx([0.71, 0.99])


def test_of_equals_the_smaller_goes_first_and_one_seed_has_no_spread() -> None:
    board = table.tabulate([made(1e-4, 0, 0.8, 0.5, 20), made(2e-4, 0, 0.8, 0.4, 10)])
    assert board.best().trained_parameters == 10
    assert board.best().deviation("validation") is None
    assert "±" not in "".join(table.told(board))


def test_the_plot_shows_each_trial() -> None:
    text = plot.svg(table.tabulate(TRIALS))
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    dots = [dot for dot in root.iter(f"{space}circle") if dot.get("r") == "3"]
    assert len(dots) == 2 * len(TRIALS)
    shown = [text.text for text in root.iter(f"{space}text")]
    assert "learning_rate 0.0001" in shown


def test_a_grid_as_dvc_writes_it() -> None:
    words = ["--finetune.learning_rate", "5e-05", "0.0001", "--run.method", "full", "lora"]
    assert leaderboard.values(words) == {
        "finetune.learning_rate": [5e-05, 1e-4],
        "run.method": ["full", "lora"],
    }
    grid: dict[str, list[Any]] = {"finetune.learning_rate": [1e-4], "finetune.seed": [0, 1]}
    assert table.chosen(TRIALS, grid) == TRIALS[:2]


def test_a_folder_without_trials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trial to compare"):
        leaderboard.main([str(tmp_path)])
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UserError, match=r"a\.json: not the outcome of a trial"):
        leaderboard.main([str(tmp_path)])


def test_trials_that_were_skipped_are_left_out_with_the_reason(tmp_path: Path) -> None:
    lacking = {"overrides": {"trial.rows": 900}, "main_metric": "a", "lacking": True, "rows": 60}
    refused = {"overrides": {"run.method": "few_shot"}, "refused": "it compares texts"}
    for name, content in (("a", lacking), ("b", refused), ("c", TRIALS[0])):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    found = table.tabulate(table.read(sorted(tmp_path.glob("*.json"))))
    assert len(found.rows) == 1 and found.metric == "accuracy"
    assert table.as_json(found)["left_out"] == [
        {"parameters": {"run.method": "few_shot"}, "reason": "it compares texts"},
        {
            "parameters": {"trial.rows": 900},
            "reason": "the training split has 60 rows, fewer than trial.rows",
        },
    ]
    assert "left out, for it compares texts: method few_shot" in table.told(found)
    with pytest.raises(UserError, match="method few_shot: it compares texts"):
        table.tabulate([refused])
