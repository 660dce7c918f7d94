"""A search: what it tries, that a kill costs nothing, and that more values run only the new."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError

from stages import check
from stages import sweep as stage
from stages.errors import UserError
from stages.sweep import Sweep
from stages.trials import coordinates, overrides, search, table
from tests import project as projects
from tests import running
from tests.project import Project
from workflow import sweep

QUICK = '''"""A trial that costs nothing: its outcome is a function of its parameters."""

import os, time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from pydantic import Field
from stages.artifacts import write_json
from stages.params import Section
from stages.training.fitting import Finetune

LIBRARIES = ()
SECTIONS = ("trial", "finetune", "evaluate")


class Trial(Section):
    rows: int | None = None
    draw: int = 0
    validation_rows: int | None = None
    lacking: str = "refuse"
    min_steps: int = 0
    threads: int = 1


@dataclass
class Job:
    out: Path
    overrides: Any
    finetune: Finetune
    evaluate: Any


def run(params, run, job):
    with open("../ran.log", "a") as log:
        log.write(job.out.stem + "\\n")
    time.sleep(0.2)
    rate, size = job.finetune.learning_rate, job.finetune.batch_size
    value = 1 / (1 + abs(rate - 1e-4) * 1e4) + size / 1000
    write_json(job.out, {
        "overrides": dict(job.overrides), "main_metric": "accuracy", "trained_parameters": 1,
        "validation": {"accuracy": value}, "test": {"accuracy": value / 2},
    })
    return {}
'''
TABLE = "results/sweep/leaderboard.csv"


def section(**changes: Any) -> Sweep:
    shipped: Sweep = check.load(projects.ROOT / "params.yaml").sections["sweep"]
    return Sweep.model_validate(shipped.model_dump() | changes)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tiny project with tokenized data, and trials that take no time."""
    project = projects.make(tmp_path_factory.mktemp("sweep") / "base" / "project")
    (project.folder / "stages/trial.py").write_text(QUICK)
    project.repro("tokenize")
    project.commit()
    return project


def copied(base: Project, name: str) -> Project:
    folder = base.folder.parent.with_name(name) / "project"
    shutil.copytree(base.folder, folder, symlinks=True)
    return Project(folder)


def ran(project: Project) -> list[str]:
    log = project.folder.parent / "ran.log"
    return log.read_text().split() if log.exists() else []


def ended(project: Project) -> set[str]:
    """The trials of which dvc.lock says that they have run."""
    lock = project.folder / "workflow/sweep/dvc.lock"
    stages = running.loaded(lock.read_text())["stages"] if lock.exists() else {}
    return {name.removeprefix("trial@") for name in stages if name.startswith("trial@")}


def killed(project: Project, trials: int) -> None:
    """Search by Snakemake until so many different trials have begun, then SIGKILL for all of it."""
    process = subprocess.Popen(
        ["python", "-m", "workflow", "sweep"],
        cwd=project.folder,
        env=projects.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while len(set(ran(project))) < trials and process.poll() is None:
        time.sleep(0.05)
    assert process.returncode is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_search_killed_twice_ends_with_the_same_table(base: Project) -> None:
    """Three rounds of four by TPE: of the trials that had ended none runs again. One round more
    runs four more."""
    whole, other = copied(base, "whole"), copied(base, "killed")
    output = whole("python", "-m", "workflow", "sweep", "--engine", "dvc")
    assert len(set(ran(whole))) == len(ran(whole)) == 12
    assert "The best of 12 settings by accuracy on the validation split" in output
    killed(other, 3)
    first, count = ended(other), len(ran(other))
    killed(other, 6)
    assert not first & set(ran(other)[count:])
    done, count = ended(other), len(ran(other))
    assert len(done) >= 4, "the first round had ended before the second kill"
    other("python", "-m", "workflow", "sweep")
    assert not done & set(ran(other)[count:])
    assert set(ran(other)) == set(ran(whole))
    assert ended(other) == set(ran(whole))
    for name in (TABLE, "results/sweep/best.yaml", "workflow/sweep/dvc.yaml"):
        assert (other.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    before = ran(whole)
    whole.set("sweep.rounds", 4)
    whole("python", "-m", "workflow", "sweep", "--engine", "dvc")
    assert len(ran(whole)) == 16 and len(set(ran(whole))) == 16
    assert ran(whole)[:12] == before
    assert len((whole.folder / TABLE).read_text().splitlines()) == 17


def test_the_best_is_used_and_no_trial_runs_again(base: Project) -> None:
    project = copied(base, "best")
    rates = [5e-5, 1e-4, 2e-4]
    parameters = {"finetune.learning_rate": rates, "finetune.batch_size": [8]}
    project.set("sweep.strategy", "grid")
    project.set("sweep.parameters", parameters)
    text = (project.folder / "params.yaml").read_text()
    search = ("python", "-m", "workflow", "sweep", "--engine", "dvc")
    assert "unrecognized arguments: --nosuch" in project(*search, "--", "--nosuch", code=254)
    assert ran(project) == []
    project(*search)
    assert len(ran(project)) == 3
    output = project("python", "-m", "workflow", "sweep", "--apply")
    assert "finetune.batch_size: 8, was 32" in output
    changed = set((project.folder / "params.yaml").read_text().splitlines()) - set(
        text.splitlines()
    )
    assert all("batch_size" in line or "learning_rate" in line for line in changed), changed
    project("python", "-m", "workflow", "sweep", "--engine", "dvc")
    assert len(ran(project)) == 3
    rates.append(3e-4)
    project.set("sweep.parameters", parameters)
    project("python", "-m", "workflow", "sweep", "--engine", "dvc")
    assert len(ran(project)) == 4
    board = json.loads((project.folder / "results/sweep/leaderboard.json").read_text())
    assert board["best"]["parameters"]["finetune.learning_rate"] == 1e-4


def test_a_mistake_is_refused_before_anything_runs(base: Project) -> None:
    project = copied(base, "mistake")
    for parameters, said in (
        ({"finetune.learning_rat": [1e-4]}, "finetune.learning_rat: unknown key"),
        ({"finetune.epochs": [0, 1]}, "finetune.epochs: out of range, got 0"),
        ({"prepare.seed": [1]}, "prepare.seed: changes nothing in a trial"),
    ):
        project.set("sweep.strategy", "grid")
        project.set("sweep.parameters", parameters)
        output = project("python", "-m", "workflow", "sweep", code=2)
        assert said in output and "Traceback" not in output
    assert ran(project) == []


def test_the_committed_plan_is_that_of_the_shipped_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without trials: `python -m workflow sweep` adds them."""
    monkeypatch.chdir(projects.ROOT)
    text = sweep.text(section(), {})
    assert (projects.ROOT / sweep.PLAN).read_text() == text, "write it anew with sweep.text"


@pytest.mark.parametrize("strategy", ["random", "tpe"])
def test_a_plan_is_a_function_of_what_came_before(strategy: str) -> None:
    one = section(strategy=strategy)
    first = search.plan(one, 0, [])
    assert search.plan(one, 0, []) == first
    assert search.plan(section(strategy=strategy, seed=1), 0, []) != first
    for setting in first:
        assert 3e-5 <= setting["finetune.learning_rate"] <= 3e-4
        assert setting["finetune.batch_size"] in (16, 32)
    if strategy == "random":
        assert search.plan(section(strategy="random", rounds=4), 0, [])[: len(first)] == first
        return
    past = [(setting, setting["finetune.learning_rate"]) for setting in first]
    assert search.plan(one, 1, past) == search.plan(one, 1, past)
    diverged = [*past[:-1], (past[-1][0], None)]
    as_bad = [*past[:-1], (past[-1][0], min(value for _, value in past[:-1]))]
    assert search.plan(one, 1, diverged) == search.plan(one, 1, as_bad)
    assert search.plan(one, 1, past) != search.plan(one, 1, [(s, -v) for s, v in past])


def test_tpe_learns() -> None:
    """It finds the better values more often than chance does."""
    one = section(rounds=6, trials=5)
    past: list[tuple[search.Setting, float]] = []
    for number in range(one.rounds):
        found = search.plan(one, number, past)
        past += [(setting, -abs(setting["finetune.learning_rate"] - 1e-4)) for setting in found]
    values = [value for _, value in past]
    assert sum(values[-10:]) > sum(values[:10])


def test_a_grid_is_every_combination_with_every_seed() -> None:
    parameters = {"run.method": ["full", "lora"], "finetune.epochs": [1, 2, 3]}
    one = section(strategy="grid", parameters=parameters, seeds=[0, 1])
    trials = search.trials(one, search.plan(one, 0, []))
    assert len(trials) == 12
    assert {trial["finetune.seed"] for trial in trials.values()} == {0, 1}
    more = section(
        strategy="grid", parameters=parameters | {"finetune.epochs": [3, 1, 2, 5]}, seeds=[0]
    )
    again = search.trials(more, search.plan(more, 0, []))
    assert len(set(again) & set(trials)) == 6


def test_the_plan_names_what_params_yaml_gives_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(projects.ROOT)
    parameters = {
        "run.method": ["full", "lora"],
        "tasks.classification.loss.label_smoothing": [0.0],
    }
    one = section(strategy="grid", parameters=parameters)
    text = sweep.text(one, search.trials(one, search.plan(one, 0, [])))
    from ruamel.yaml import YAML

    trial = YAML(typ="safe").load(text)["stages"]["trial"]["do"]
    assert "stages/methods/${item.method}.py" in trial["deps"]
    keys = [key for key in trial["params"] if isinstance(key, str)]
    assert "methods.${item.method}" in keys and "run.method" not in keys
    assert "tasks.classification.loss.class_weights" in keys
    assert "tasks.classification.loss.label_smoothing" not in keys
    assert "finetune.learning_rate" in keys and "finetune.seed" not in keys


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy": "grid"}, "a grid has no ranges"),
        ({"parameters": {"finetune.seed": [1]}}, "write sweep.seeds"),
        ({"parameters": {"finetune.epochs": []}}, "finetune.epochs has no value"),
        ({"parameters": {"a": {"low": 0.0, "high": 1.0, "log": True}}}, "no logarithm"),
        ({"parameters": {"a": {"low": 1.0, "high": 1.0}}}, "not above low"),
        (
            {"parameters": {"a": {"low": 1.0, "high": 2.5, "whole": True}}},
            "high: no whole number, got 2.5",
        ),
    ],
)
def test_an_impossible_search_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        section(**changes)


def test_words_for_a_shell_read_back() -> None:
    given = {"methods.lora.targets": ["query", "value"], "finetune.learning_rate": 5e-05,
             "run.method": "lora", "trial.rows": None}  # fmt: skip
    import shlex

    assert overrides.parse(shlex.split(" ".join(overrides.words(given)))) == given


def made(rate: float, method: str, value: float) -> dict[str, Any]:
    return {
        "overrides": {"finetune.learning_rate": rate, "run.method": method, "finetune.seed": 0},
        "main_metric": "accuracy", "validation": {"accuracy": value}, "test": {"accuracy": 0.5},
        "trained_parameters": 1,
    }  # fmt: skip


def test_the_plot_and_the_best_of_a_search() -> None:
    found = table.tabulate(
        [made(1e-5, "full", 0.7), made(1e-4, "lora", 0.9), made(1e-3, "full", 0.8)]
    )
    root = ElementTree.fromstring(coordinates.svg(found))
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 3
    assert [line.get("stroke-width") for line in lines] == ["1.6", "1.6", "4"]
    heights = [
        [float(p.split(",")[1]) for p in (line.get("points") or "").split()] for line in lines
    ]
    assert heights[0][0] - heights[2][0] == pytest.approx(
        heights[2][0] - heights[1][0]
    )  # logarithmic
    text = stage.best(found)
    assert "dvc exp run -S finetune.learning_rate=0.0001 -S run.method=lora" in text
    assert "\nfinetune:\n  learning_rate: 0.0001\nrun:\n  method: lora\n" in text


def test_the_stage_wants_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="which knows the names"):
        stage.main([])
    with pytest.raises(UserError, match=r"t1\.json: missing"):
        stage.main(["--trials", "t1"])


def test_the_plot_of_values_that_are_lists() -> None:
    trials = [made(1e-4, "lora", value) for value in (0.7, 0.9)]
    for trial, targets in zip(trials, (["query"], ["query", "value"]), strict=True):
        trial["overrides"]["methods.lora.targets"] = targets
    drawn = coordinates.svg(table.tabulate(trials))
    assert "[&#x27;query&#x27;, &#x27;value&#x27;]" in drawn


def test_a_plan_goes_on_where_rounds_have_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(projects.ROOT)
    monkeypatch.setattr(sweep, "PLAN", tmp_path / "dvc.yaml")
    monkeypatch.setattr(sweep, "FOLDER", tmp_path)
    (tmp_path / "trials").mkdir()

    def planned() -> list[str]:
        assert sweep.main(["--plan"]) == 0
        names: list[str] = running.loaded((tmp_path / "dvc.yaml").read_text())["vars"][1]["plan"][
            "trials"
        ]
        for name in names:
            (tmp_path / f"trials/{name}.json").write_text(json.dumps(made(1e-4, "full", 0.5)))
        return names

    rounds = [planned() for _ in range(4)]
    assert [len(names) for names in rounds] == [4, 8, 12, 12]
    assert rounds[2][:4] == rounds[0] and rounds[3] == rounds[2]


def test_the_best_is_applied_where_params_yaml_leaves_keys_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/sweep").mkdir(parents=True)
    best = "finetune:\n  epochs: 3\nmethods:\n  lora:\n    rank: 4\n"
    (tmp_path / "results/sweep/best.yaml").write_text(best)
    (tmp_path / "params.yaml").write_text("finetune:\n  seed: 0\nmethods:\n")
    assert sweep.apply() == 0
    assert capsys.readouterr().out.splitlines() == [
        "finetune.epochs: 3, was absent", "methods.lora.rank: 4, was absent"
    ]  # fmt: skip
    found = running.loaded((tmp_path / "params.yaml").read_text())
    assert found == {"finetune": {"seed": 0, "epochs": 3}, "methods": {"lora": {"rank": 4}}}
