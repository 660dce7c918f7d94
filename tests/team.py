"""A team for tests: ann, who has results, a git hub, and clones of it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from filelock import FileLock

from tests import project
from tests.project import Project

RATES = ("0.001", "0.002")  # of ann's two queued experiments; the committed run has another
TITLE = "What ann called it on a branch"


def ann(folder: Path) -> Project:
    """Ann's project: results committed on main, those of another title on a branch, and two
    experiments that ran from the queue side by side.

    It is made once, whoever of several test processes comes first.
    """
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            draft = folder.with_suffix(".draft")
            shutil.rmtree(draft, ignore_errors=True)
            _make(draft)
            draft.rename(folder)
    return Project(folder)


def clone(of: Project, folder: Path) -> Project:
    """What git holds of it, as a team mate gets it."""
    of("git", "clone", "-q", "--branch", "main", str(of.folder), str(folder))
    return Project(folder)


def copy(of: Project, folder: Path) -> Project:
    """All of it, the cache too."""
    shutil.copytree(of.folder, folder, symlinks=True)
    return Project(folder)


def _make(folder: Path) -> None:
    made = project.make(folder)
    made.repro()
    made.commit("results")
    made("git", "checkout", "-q", "-b", "title")
    made.set("report.title", TITLE)
    assert made.repro() == {"report"}
    made.commit("another title")
    made("git", "checkout", "-q", "main")
    made("dvc", "checkout", "-q")
    for rate in RATES:
        made("dvc", "exp", "run", "--queue", "-S", f"finetune.learning_rate={rate}")
    made("dvc", "queue", "start", "-j", "2")
    end = time.monotonic() + 1200
    while (status := made("dvc", "queue", "status")).count("Success") < len(RATES):
        assert "Failed" not in status and time.monotonic() < end, status
        time.sleep(2)
