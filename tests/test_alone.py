"""SIGKILL of plain `dvc repro`, two at once, and a lock file that a kill has torn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stages import locks
from tests import bridge
from tests.bridge import Copy

# A stage as `python -m stages` runs it, but one that waits to be let go, and has a worker that
# runs its command again, as training on several devices does.
STAGE = """\
import os, subprocess, sys, time
from pathlib import Path
from stages.alone import alone
log = Path(os.environ["RUNLOG"])
with alone("train"):
    if sys.argv[1:] == ["worker"]:
        sys.exit()
    subprocess.run([sys.executable, "-m", "stages.wait", "worker"], check=True)
    with log.open("a") as file:
        file.write(f"{os.getpid()}\\n")
    while not Path(f"{log}.go").exists():
        time.sleep(0.02)
    Path("model").write_text(Path("in.txt").read_text())
"""
PROJECT = {
    "in.txt": "1\n",
    "stages/wait.py": STAGE,
    "dvc.yaml": """\
stages:
  train:
    cmd: python -m stages.wait
    deps: [in.txt]
    outs: [model]
""",
}


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return bridge.create(tmp_path / "copy", PROJECT)


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def started(copy: Copy) -> list[int]:
    """Wait until the stage runs; the processes that ever ran it."""
    until(lambda: copy.log.exists() and copy.log.read_text())
    return [int(line) for line in copy.log.read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")
def test_a_stage_dies_with_dvc_repro(copy: Copy) -> None:
    run = copy.start("dvc", "repro")
    (stage,) = started(copy)
    run.kill()
    run.wait()
    assert bridge.has_ended(stage)
    copy.log.with_suffix(".log.go").touch()
    copy("dvc", "repro")
    assert len(started(copy)) == 2
    assert "up to date" in copy("dvc", "status")


def test_a_stage_that_lives_on_is_waited_for(copy: Copy) -> None:
    """As on a system that tells nobody of a death: here the stage is told of another engine."""
    cut = "env -u DVC_STAGE python -m stages.wait"
    (copy.folder / "dvc.yaml").write_text(PROJECT["dvc.yaml"].replace("python -m stages.wait", cut))
    run = copy.start("dvc", "repro")
    (orphan,) = started(copy)
    run.kill()
    run.wait()
    assert bridge.is_alive(orphan)
    again = copy.start("dvc", "repro")
    output = copy.folder.with_suffix(".out")
    until(lambda: f"train: still being run by process {orphan}" in output.read_text())
    copy.log.with_suffix(".log.go").touch()
    assert again.wait() == 0
    assert len(started(copy)) == 2
    assert "up to date" in copy("dvc", "status")


def test_a_command_typed_in_a_shell_outlives_it(copy: Copy) -> None:
    script = "python -m stages.wait & echo started"
    shell = subprocess.Popen(
        ["sh", "-c", script], cwd=copy.folder, env=copy.environment(), stdout=subprocess.DEVNULL
    )
    assert shell.wait() == 0
    (stage,) = started(copy)
    assert bridge.is_alive(stage)
    copy.log.with_suffix(".log.go").touch()
    until((copy.folder / "model").exists)


def test_two_plain_runs_at_once(copy: Copy) -> None:
    """The second is refused at once and in words; nothing is harmed."""
    first = copy.start("dvc", "repro")
    started(copy)
    assert "is busy" in copy("dvc", "repro", check=False)
    copy.log.with_suffix(".log.go").touch()
    assert first.wait() == 0
    assert len(started(copy)) == 1
    assert "up to date" in copy("dvc", "status")


def test_dvc_is_killed_while_it_runs_nothing(copy: Copy) -> None:
    """The locks of a dead process are no obstacle."""
    run = copy.start("dvc", "repro")
    started(copy)
    os.kill(run.pid, signal.SIGSTOP)
    copy.log.with_suffix(".log.go").touch()
    until((copy.folder / "model").exists)
    run.kill()
    run.wait()
    copy("dvc", "repro")
    assert "up to date" in copy("dvc", "status")


def test_dvc_lock_cut_at_any_place() -> None:
    """What is left is a lock of DVC's form, with every entry before the cut."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import parse_yaml

    whole = (bridge.ROOT / "dvc.lock").read_text()
    names = list(parse_yaml(whole, "dvc.lock")["stages"])
    assert not locks.torn(whole)
    for size in range(0, len(whole), 211):
        mended = locks.mended(whole[:size])
        left = list(COMPILED_LOCKFILE_SCHEMA(parse_yaml(mended, "dvc.lock")).get("stages", {}))
        begun = [name for name in names if f"\n  {name}:\n" in whole[:size]]
        assert left in (begun, begun[:-1])
    conflict = "<<<<<<< HEAD\n" + whole
    assert locks.mended(conflict) == conflict


@pytest.mark.parametrize("cut", [0, 0.67])
def test_a_torn_lock_file(tmp_path: Path, cut: float) -> None:
    """Snakemake mends it; nothing runs, for the cache has all results. So does plain DVC, once
    the file is deleted, as `python -m stages check` says."""
    two = (
        "stages:\n"
        "  a: {cmd: echo a >> $RUNLOG; cat in.txt > o, deps: [in.txt], outs: [o]}\n"
        "  b: {cmd: echo b >> $RUNLOG; cat o > p, deps: [o], outs: [p]}\n"
    )
    copy = bridge.create(tmp_path / "copy", {"in.txt": "1\n", "dvc.yaml": two})
    assert copy.run("dvc").ran == ["a", "b"]
    lock = copy.folder / "dvc.lock"
    whole = lock.read_text()
    torn = whole[: int(cut * len(whole) if isinstance(cut, float) else cut)]
    lock.write_text(torn)
    assert locks.torn(torn)
    mended = copy.run("snakemake")
    assert "dvc.lock: was cut short" in mended.output
    assert (mended.code, mended.ran) == (0, [])
    assert lock.read_text() == whole
    lock.unlink()
    assert copy.run("dvc").ran == []
    assert lock.read_text() == whole
