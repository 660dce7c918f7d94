"""The DAG run by DVC: what each edit reruns, and what a team shares."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages import check, plan
from tests import project as projects
from tests.project import Project

ALL = {"fetch_model", "prepare", "tokenize", "finetune", "evaluate", "baseline", "export", "report"}
AFTER_PREPARE = ALL - {"fetch_model"}
AFTER_FINETUNE = {"finetune", "evaluate", "export", "report"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tiny project whose stages have all run once."""
    project = projects.make(tmp_path_factory.mktemp("project"))
    assert project.repro() == ALL
    project.commit("results")
    return project


@pytest.fixture
def project(first: Project) -> Iterator[Project]:
    """The project, put back after the test; what was computed comes from DVC's cache."""
    yield first
    first("git", "checkout", "-q", "--", ".")
    first("git", "clean", "-fdq")
    first("dvc", "checkout", "-q", "--force")


def write(file: str, text: str) -> Callable[[Project], None]:
    return lambda project: project.append(file, text)


def put(key: str, value: object) -> Callable[[Project], None]:
    return lambda project: project.set(key, value)


def pin(name: str, key: str) -> Callable[[Project], None]:
    """Pin another version, without installing it: only the pin's place in the key counts."""

    def change(project: Project) -> None:
        path = project.folder / "pyproject.toml"
        lines = path.read_text().splitlines()
        number = next(i for i, line in enumerate(lines) if line.startswith(key))
        lines[number] = f'{key} = "0.0.1"'
        path.write_text("\n".join(lines) + "\n")

    return change


def touch(project: Project) -> None:
    for path in project.folder.rglob("*.py"):
        path.touch()
    (project.folder / "data/raw/reviews.csv").touch()


def new_base(project: Project) -> None:
    projects.tiny.make_base(project.folder / "data/local_base", seed=1)


EDITS: dict[str, tuple[Callable[[Project], None], set[str]]] = {
    "nothing": (lambda project: None, set()),
    "touch": (touch, set()),
    "README": (write("README.md", "\nmore\n"), set()),
    "tests": (write("tests/test_params.py", "\n# more\n"), set()),
    "report.title": (put("report.title", "Another"), {"report"}),
    "tracking": (put("tracking.wandb", "offline"), set()),
    "finetune.learning_rate": (put("finetune.learning_rate", 3e-4), AFTER_FINETUNE),
    "methods.lora while full": (put("methods.lora.rank", 4), set()),
    "run.method": (put("run.method", "head_only"), AFTER_FINETUNE),
    "tokenize.max_length": (put("tokenize.max_length", 8), {"tokenize"} | AFTER_FINETUNE),
    "prepare.seed": (put("prepare.seed", 1), AFTER_PREPARE),
    "evaluate.seed": (put("evaluate.seed", 1), {"evaluate", "export", "report"}),
    "baseline.ngrams": (put("baseline.ngrams", 1), {"baseline", "export", "report"}),
    "the base's weights": (new_base, {"fetch_model"} | AFTER_FINETUNE),
    "one row more": (
        write("data/raw/reviews.csv", "the good and happy one more,positive,5,food,stated\n"),
        AFTER_PREPARE,
    ),
    "a comment in evaluate": (write("stages/evaluate.py", "\n# more\n"), {"evaluate"}),
    "a module two imports away": (
        write("stages/training/schedule.py", "\n# more\n"),
        {"finetune"},  # the same weights come out, so nothing below runs
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_only_what_changed_reruns(
    project: Project, edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And `python -m stages check` says so before."""
    change, expected = EDITS[edit]
    change(project)
    monkeypatch.chdir(project.folder)
    steps = plan.plan(check.read(Path("params.yaml")))
    told = {step.stage: step.state for step in steps if step.state != "not run"}
    ran = project.repro()
    assert ran == expected
    assert {stage for stage, state in told.items() if state == "run"} <= ran <= set(told)


def test_a_changed_pin_reruns_what_the_library_shapes(project: Project) -> None:
    """A new torch reruns finetune and what is below, never prepare; with the old one still
    installed, the stage refuses to run."""
    pin("torch", "torch")(project)
    output = project("dvc", "repro", code=255)
    assert projects.RAN.findall(output) == ["finetune"]
    assert "tool.pins.torch: installed is 2.13.0, got '0.0.1'" in output
    status = json.loads(project("dvc", "status", "--json"))
    assert {"finetune", "evaluate", "export"} <= set(status)
    assert not {"fetch_model", "prepare", "tokenize", "baseline"} & set(status)


def test_a_second_run_is_byte_equal(project: Project) -> None:
    before = (project.folder / "dvc.lock").read_bytes()
    assert project.repro("--force") == ALL
    assert (project.folder / "dvc.lock").read_bytes() == before
    assert project("git", "status", "--porcelain") == ""


def test_a_team_mate_pulls_and_runs_nothing(project: Project, tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    project("dvc", "remote", "add", "--local", "-d", "team", str(tmp_path / "remote"))
    project("dvc", "push", "-q")
    clone = tmp_path / "clone"
    project("git", "clone", "-q", ".", str(clone))
    mate = Project(clone)
    mate("dvc", "remote", "add", "--local", "-d", "team", str(tmp_path / "remote"))
    mate("dvc", "pull", "-q")
    assert mate.repro() == set()
    assert mate("git", "status", "--porcelain") == ""
    assert (clone / "results/report.html").exists()


def test_results_beside_those_of_a_revision(project: Project, tmp_path: Path) -> None:
    """Predictions come out of DVC's cache, or else out of the remote."""
    project.set("finetune.seed", 1)
    project.repro()
    output = project("python", "-m", "workflow", "compare", "HEAD")
    assert "now - then, same rows" in output
    assert "finetune.seed: 1, was 0" in output
    assert "code: no difference" in output
    (tmp_path / "remote").mkdir()
    project("git", "commit", "-qam", "another seed")
    clone = tmp_path / "clone"
    project("git", "clone", "-q", ".", str(clone))
    project("git", "reset", "-q", "HEAD~1")
    mate = Project(clone)
    output = mate("python", "-m", "workflow", "compare", "HEAD~1", code=2)
    assert "results/predictions.parquet: missing; run `dvc repro` or `dvc pull`" in output
    name = "results/predictions.parquet"
    (clone / name).write_bytes((project.folder / name).read_bytes())
    output = mate("python", "-m", "workflow", "compare", "HEAD~1", code=2)
    assert f"HEAD~1: {name} is neither in DVC's cache nor in its remote" in output
    mate("dvc", "remote", "add", "--local", "-d", "other", str(tmp_path / "remote"))
    project("dvc", "remote", "add", "--local", "-d", "other", str(tmp_path / "remote"))
    project("dvc", "push", "-q", "--all-commits")
    assert "now - then, same rows" in mate("python", "-m", "workflow", "compare", "HEAD~1")


def test_dvc_views(project: Project) -> None:
    assert "accuracy" in project("dvc", "metrics", "show")
    project.set("finetune.learning_rate", 3e-4)
    assert "finetune.learning_rate" in project("dvc", "params", "diff")
    project("dvc", "plots", "show", "-o", "plots")
    assert (project.folder / "plots/index.html").exists()


def test_an_experiment_changes_one_parameter(project: Project) -> None:
    output = project("dvc", "exp", "run", "-n", "slower", "-S", "finetune.learning_rate=5e-5")
    assert set(projects.RAN.findall(output)) == AFTER_FINETUNE
    assert "slower" in project("dvc", "exp", "show", "--csv")


def test_snakemake_runs_the_dag(project: Project) -> None:
    """What DVC would run, and nothing else; DVC then finds nothing to do."""
    project.set("report.title", "By Snakemake")
    output = project("snakemake", "--dry-run")
    assert re.search(r"run +report +params.yaml: report.title .* -> By Snakemake", output)
    assert re.search(r"ok +finetune +up to date", output)
    assert projects.RAN.findall(output) == []
    assert projects.RAN.findall(project("snakemake")) == ["report"]
    assert project.repro() == set()
    assert "up to date" in project("dvc", "status", "dvc.yaml")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_half_written(
    project: Project, how: signal.Signals
) -> None:
    project.set("finetune.epochs", 500)
    stage = subprocess.Popen(
        ["python", "-m", "stages", "finetune"],
        cwd=project.folder,
        env=projects.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert stage.stderr is not None
    for line in stage.stderr:
        if line.startswith("epoch 2/"):
            break
    stage.send_signal(how)
    rest = stage.communicate(timeout=60)[1]
    assert stage.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    assert "Traceback" not in rest
    assert not list(project.folder.rglob("*.partial"))
    project.set("finetune.epochs", 1)
    assert project.repro() == set()


def test_repro_goes_on_after_a_kill(project: Project) -> None:
    """DVC with all its children is killed; the next `dvc repro` ends with the same bytes."""
    project.set("finetune.epochs", 400)
    project.set("finetune.batch_size", 16)
    running = subprocess.Popen(
        ["dvc", "repro", "finetune"],
        cwd=project.folder,
        env=projects.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    kept = project.folder / "results/run/checkpoints"
    while running.poll() is None and not list(kept.glob("*/step-*")):
        time.sleep(0.05)
    assert running.returncode is None, "it ended before a checkpoint was due"
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert "training: goes on after step" in project("dvc", "repro", "finetune")
    assert not list(kept.glob("*"))
    lock = (project.folder / "dvc.lock").read_bytes()
    assert project.repro("--force", "--single-item", "finetune") == {"finetune"}
    assert (project.folder / "dvc.lock").read_bytes() == lock


def test_a_run_killed_while_it_writes_is_repeated(project: Project) -> None:
    """A half-written folder of a killed run is replaced, not used."""
    left = project.folder / "data/tokenized.partial"
    left.mkdir()
    (left / "train.arrow").write_bytes(b"half")
    (project.folder / "data/tokenized/train.arrow").unlink()
    project.set("tokenize.max_length", 9)
    assert "tokenize" in project.repro()
    assert not left.exists()


def test_a_mistake_is_refused_before_anything_runs(project: Project) -> None:
    project.edit("params.yaml", lambda content: content["finetune"].update(learning_rat=1e-4))
    output = project("dvc", "repro", code=255)
    assert "params.yaml: finetune.learning_rat: unknown key, got 0.0001" in output
    assert "did you mean 'learning_rate'?" in output
    assert "Traceback" not in output
