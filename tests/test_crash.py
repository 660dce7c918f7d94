"""Runs that were killed: they go on where they were, and end with the same bytes."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from stages import check, clean
from stages.training import checkpoints, fitting
from stages.training.checkpoints import Checkpoints, key
from stages.training.machine import Machine, configure
from tests import crash, running
from tests import project as projects
from tests.test_training import LABELS, METHODS, sections, table

MAIN = ("full", "head_only", "lora")
MACHINE = Machine("cpu", "float32", 1, "any")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What finetune reads, with a copy of the code that may be changed."""
    monkeypatch.chdir(tmp_path)
    crash.make(tmp_path)
    (tmp_path / "stages").unlink()
    shutil.copytree(projects.ROOT / "stages", tmp_path / "stages")
    return tmp_path


def store(folder: Path) -> Checkpoints:
    return Checkpoints(folder / "kept", seconds=0.0, share=1e9)


def driver(*arguments: object, **variables: str) -> dict[str, str]:
    """Method to the hash of its weights, as `python -m tests.crash` says."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", *map(str, arguments)],
        cwd=projects.ROOT,
        env=projects.environment() | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"^(\w+): .* the same bytes (\w+)$", done.stdout, re.MULTILINE))


@pytest.fixture(scope="module")
def due() -> dict[str, str]:
    """The weights of runs that were killed."""
    return driver(20, 0, 0, *MAIN, PYTHONHASHSEED="1")


def test_killed_runs_end_with_the_bytes_of_one_never_killed(due: dict[str, str]) -> None:
    assert sorted(due) == sorted(MAIN)
    others = [method for method in METHODS if method not in MAIN]
    assert sorted(driver(2, 0, 0, *others)) == others


@pytest.mark.parametrize(("process", "workers"), [(2, 0), (3, 1), (4, 3), (5, 1)])
def test_fresh_processes_with_any_workers_give_the_same_bytes(
    due: dict[str, str], process: int, workers: int
) -> None:
    assert driver(0, 0, workers, *MAIN, PYTHONHASHSEED=str(process)) == due


def test_a_run_that_had_ended_is_not_trained_again(folder: Path) -> None:
    """Killed after training, before its outputs were whole; early stopping had ended it."""
    params, run = sections(epochs=30, learning_rate=3e-3, early_stopping=2)
    machine = configure("cpu", "float32", 1)
    data = table(64), table(16, seed=1)
    _, first = fitting.fit(params, run, machine, LABELS, *data, store=store(folder))
    module, again = fitting.fit(params, run, machine, LABELS, *data, store=store(folder))
    assert len(first.curve) < 30 and module.resumed == module.tokens > 0
    assert again.curve == first.curve and again.epoch == first.epoch
    assert all(torch.equal(again.weights[name], w) for name, w in first.weights.items())


def test_the_key_is_complete(folder: Path) -> None:
    """Whatever shapes the weights changes the key; what does not leaves it."""

    def now(machine: Machine = MACHINE, method: str = "full", **changes: Any) -> str:
        return fitting.checkpoints(*sections(method, **changes), machine).folder.name

    first = now()
    assert len({first, now(learning_rate=2e-5), now(seed=1), now(method="lora")}) == 4
    assert now(Machine("cpu", "float32", 2, "any")) != first
    for name in ("stages/report.py", "stages/methods/lora.py", "data/prepared/other.parquet"):
        with (folder / name).open("a") as file:
            file.write("\n")
        assert now() == first, name
    for name in (
        "stages/training/module.py",
        "stages/methods/full.py",
        "stages/tasks/classification.py",
        "data/base/config.json",
        "data/base/model.safetensors",
        "data/tokenized/validation.arrow",
        "data/prepared/labels.json",
    ):
        before = now()
        with (folder / name).open("a") as file:
            file.write("\n")
        assert now() != before, name


def save(kept: Checkpoints, step: int, epoch: int) -> None:
    tensors = {"weight": torch.full((3,), float(step))}
    kept.save(step, {"step": step, "best_epoch": epoch}, tensors, {"w": torch.tensor([epoch])})


def damaged(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def cut_short(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 5)


@pytest.mark.parametrize(
    "harm", [damaged, cut_short, lambda file: os.truncate(file, 0), Path.unlink]
)
@pytest.mark.parametrize("kind", ["step", "best"])
def test_a_harmed_checkpoint_is_passed_over(
    folder: Path, harm: Any, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = store(folder)
    for step, epoch in ((1, 1), (2, 1), (3, 2)):
        save(kept, step, epoch)
    assert len(list(kept.folder.glob("step-*"))) == 2, "two are kept"
    harm(sorted(kept.folder.glob(f"{kind}-*"))[-1])
    found = store(folder).load()
    assert found is not None
    state, tensors, best = found
    assert state["step"] == 2 and tensors["weight"].tolist() == [2.0] * 3
    assert best["w"].tolist() == [1]
    if harm is damaged:
        assert "damaged; the checkpoint before it is used" in capsys.readouterr().err


def test_halves_that_a_kill_left_are_removed(folder: Path) -> None:
    kept = store(folder)
    save(kept, 1, 1)
    for name in (".tmpAbCdEf", "step.partial"):
        (kept.folder / name).write_bytes(b"half")
    found = store(folder).load()
    assert found is not None and found[0]["step"] == 1
    assert {file.name[:5] for file in kept.folder.iterdir()} == {"step-", "best-"}


def test_nothing_is_found_where_all_are_harmed(folder: Path) -> None:
    kept = store(folder)
    save(kept, 1, 1)
    damaged(next(kept.folder.glob("step-*")))
    assert store(folder).load() is None


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (checkpoints, "_flush", OSError(errno.ENOSPC, "No space left")),
        (safetensors.torch, "save_file", safetensors.SafetensorError("No space left")),
    ],
)
def test_a_full_disk_stops_no_training(
    folder: Path, owner: Any, name: str, error: Exception,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    kept = store(folder)
    save(kept, 1, 1)

    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(owner, name, full)
    save(kept, 2, 1)
    assert f"no checkpoint ({error}); it goes on without" in capsys.readouterr().err
    monkeypatch.undo()
    found = store(folder).load()
    assert found is not None and found[0]["step"] == 1
    assert not list(kept.folder.glob("*.partial"))


def test_writing_takes_its_share_of_the_time_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock)
    kept = Checkpoints(folder / "kept", seconds=5.0, share=0.01)
    clock = 9.9
    assert not kept.due(20_000_000), "0.1 s by a cautious guess, so not before 10 s"
    clock = 10.1
    assert kept.due(20_000_000)

    def write(*_: Any) -> str:
        nonlocal clock
        clock += 0.1
        return "file"

    monkeypatch.setattr(Checkpoints, "_write", write)
    save(kept, 1, 1)  # and the best weights
    assert kept.spent == pytest.approx(0.2)
    clock = 30.2
    assert not kept.due(20_000_000), "as measured"
    clock = 30.4
    assert kept.due(20_000_000)


def test_clean_removes_orphans_and_keeps_what_is_wanted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages import finetune

    shutil.copy(projects.ROOT / "params.yaml", folder)
    running.put(folder, {"run.method": "from_scratch"})  # which brings its epochs
    params = check.load()
    looked_up: list[Path] = []

    def look(*given: Any, **others: Any) -> Checkpoints:
        looked_up.append(made(*given, **others).folder)
        raise KeyboardInterrupt

    made = fitting.checkpoints
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fitting, "checkpoints", look)
        finetune.run(params.sections["finetune"], params.run)
    (wanted,) = looked_up
    trial, old = (checkpoints.FOLDER / f"{checkpoints.TRIALS}{name}" for name in ("a", "b"))
    training = checkpoints.FOLDER / f"{checkpoints.PRETRAINING}c"
    for place in (wanted, checkpoints.FOLDER / "other", trial, old, training):
        save(Checkpoints(place), 1, 1)
    os.utime(old, (1, 1))
    assert clean.main([]) == 0
    assert set(checkpoints.FOLDER.iterdir()) == {wanted, trial, training}
    assert "clean: 2 removed" in capsys.readouterr().out
    assert clean.main(["--all"]) == 0
    assert not list(checkpoints.FOLDER.iterdir())


def test_keys_resolve_the_names_in_deps(folder: Path) -> None:
    names = {"run.task": "classification", "run.method": "full"}
    assert key("finetune", names) != key("finetune", names | {"run.method": "lora"})
