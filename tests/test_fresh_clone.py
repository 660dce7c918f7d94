"""The committed results, computed anew from the last commit: the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.training.machine import configure
from tests.project import ROOT, Project

COMMITTED = json.loads((ROOT / "results/metrics.json").read_text())


def test_a_fresh_clone_reproduces_the_committed_lock(tmp_path: Path) -> None:
    """Without any cache: every stage runs."""
    committed = COMMITTED["device_class"]
    here = configure(threads=committed["threads"]).device_class()
    if here != committed:
        pytest.skip(f"the committed results were computed as {committed}, this machine is {here}")
    Project(ROOT)("git", "clone", "-q", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    assert len(clone.repro()) == 8
    assert clone("git", "status", "--porcelain") == ""
    assert clone.repro() == set()
