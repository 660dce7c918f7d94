"""What ran, what was restored, and what it cost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stages import runs
from stages.errors import UserError

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost"]
STAGES = {"prepare": ["data/prepared"], "baseline": ["results/baseline.json", "results/b.csv"]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two stages that ran once, long ago."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    Path("dvc.yaml").write_text(json.dumps({"stages": {name: {"cmd": name} for name in STAGES}}))
    Path("data/prepared/inner").mkdir(parents=True)
    Path("data/prepared/inner/train").write_text("rows")
    Path("results").mkdir()
    Path("results/baseline.json").write_text("1")
    Path("results/b.csv").write_text("2")
    write_lock()
    return tmp_path


def write_lock(**changes: str) -> None:
    stages = {
        name: {
            "cmd": name,
            "deps": [{"path": "raw", "md5": "0"}],
            "outs": [{"path": path, "md5": changes.get(name, "1")} for path in outs],
        }
        for name, outs in STAGES.items()
    }
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))


def test_record_says_cost_machine_and_facts(project: Path) -> None:
    runs.record("prepare", 1.23456, {"rows": 7})
    found = runs.records()["prepare"]
    assert found["stage"] == "prepare" and found["facts"] == {"rows": 7}
    assert found["seconds"] == 1.235
    assert found["finished"].endswith("+00:00")
    assert found["cpu_seconds"] > 0 and 5 < found["peak_memory_mb"] < 1e6
    assert found["machine"]["cores"] >= 1 and found["machine"]["memory_gb"] > 0
    assert found["machine"]["gpu"] is None or "torch" in sys.modules
    assert found["commit"] is None


def test_record_names_the_commit_and_whether_files_differ_from_it(project: Path) -> None:
    for command in (["init", "-q"], ["add", "dvc.yaml"], ["commit", "-qm", "x"]):
        subprocess.run([*GIT, *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    runs.record("prepare", 1, {})
    assert runs.records()["prepare"]["commit"] == {"hash": head.stdout.strip(), "dirty": False}
    Path("dvc.yaml").write_text("stages: {}")
    runs.record("prepare", 1, {})
    assert runs.records()["prepare"]["commit"]["dirty"] is True


def test_record_outside_git_or_without_git(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))
    runs.record("prepare", 1, {})
    assert runs.records()["prepare"]["commit"] is None


def test_the_gpu_is_named_only_where_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "a GPU")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert runs.machine()["gpu"] == "a GPU"
    monkeypatch.delitem(sys.modules, "torch")
    assert runs.machine()["gpu"] is None
    assert "torch" not in sys.modules


def test_peak_memory_is_of_the_stage_not_of_who_started_it(project: Path) -> None:
    """DVC starts stages; its own size must not be the least that every stage reports."""
    inner = (
        "import sys; sys.path.insert(0, sys.argv[1]); from stages import runs; "
        "print(runs._cost()['peak_memory_mb'])"
    )
    outer = (
        "import subprocess, sys; ballast = bytearray(b'x') * 400_000_000; "
        "subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True)"
    )
    root = str(Path(runs.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", outer, inner, root], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 300 or sys.platform != "linux"


def test_nothing_happened(project: Path) -> None:
    runs.record("prepare", 1, {})
    assert runs.since(runs.snapshot()) == {"prepare": "unchanged", "baseline": "unchanged"}


def test_ran(project: Path) -> None:
    before = runs.snapshot()
    runs.record("prepare", 1, {})
    assert runs.since(before) == {"prepare": "ran", "baseline": "unchanged"}


def replace_file() -> None:
    file = Path("data/prepared/inner/train")
    file.with_name("new").write_text("ROWS")
    status = file.stat()
    os.utime(file.with_name("new"), ns=(status.st_atime_ns, status.st_mtime_ns))
    file.with_name("new").replace(file)  # same size, same time: a link out of the cache


def add_file() -> None:
    Path("data/prepared/validation").write_text("")


def relock() -> None:
    write_lock(prepare="2")


@pytest.mark.parametrize("restore", [replace_file, add_file, relock])
def test_restored(project: Path, restore: Any) -> None:
    runs.record("prepare", 1, {})
    before = json.loads(json.dumps(runs.snapshot()))
    restore()
    assert runs.since(before) == {"prepare": "restored", "baseline": "unchanged"}


def test_restored_where_nothing_was(project: Path) -> None:
    away = project / "away"
    shutil.move("data", away)
    Path("dvc.lock").rename("lock")
    before = runs.snapshot()
    Path("lock").rename("dvc.lock")
    shutil.move(away, "data")
    assert runs.since(before) == {"prepare": "restored", "baseline": "restored"}


def test_missing(project: Path) -> None:
    before = runs.snapshot()
    Path("results/b.csv").unlink()
    assert runs.since(before)["baseline"] == "missing"
    Path("dvc.lock").unlink()
    assert runs.since(before) == {"prepare": "missing", "baseline": "missing"}


def test_stages_of_a_loop_are_told_one_by_one(project: Path) -> None:
    stages = {"trial": {"foreach": [1], "do": {"cmd": "x"}}}
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))
    recorded = {"trial@1": {"cmd": "x", "outs": []}}
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": recorded}))
    assert runs.since(runs.snapshot()) == {"trial@1": "unchanged"}


def test_a_broken_lock_is_named(project: Path) -> None:
    Path("dvc.lock").write_text("stages: [")
    with pytest.raises(UserError, match=r"dvc\.lock: cut short, as by a kill"):
        runs.snapshot()


def test_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"dvc\.yaml: missing; run from the project's root"):
        runs.since({"time": "2020-01-01T00:00:00+00:00", "stages": {}})


def test_marks_of_a_merge_are_told_where_one_side_may_be_taken() -> None:
    """Of dvc.lock alone: the pipeline is written by people, who put both sides together."""
    marked = "<<<<<<< HEAD\nschema: '2.0'\n=======\nschema: '2.0'\n>>>>>>> other\n"
    with pytest.raises(UserError, match=r"dvc.lock: has git's marks of a merge conflict; take one"):
        runs.lock(marked)
    with pytest.raises(UserError, match=r"dvc.yaml: not YAML; `git checkout dvc.yaml`"):
        runs._yaml(marked, "dvc.yaml")
