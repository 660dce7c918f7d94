"""`python -m stages explain`: why a stage would run, and why its bytes are others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests import project as projects


def test_why_stages_run_and_why_bytes_differ(tmp_path: Path) -> None:
    project = projects.make(tmp_path)

    def explained() -> str:
        return " ".join(project("python", "-m", "stages", "explain").split())

    project.repro("fetch_model", "prepare")
    assert "tokenize would run: has not run yet" in explained()
    project.commit("results")
    said = explained()
    assert "prepare is up to date" in said and "other bytes" not in said
    assert "git has no results/metrics.json" in said

    # As if another machine had committed them.
    def elsewhere(content: Any) -> None:
        prepare, fetched = content["stages"]["prepare"], content["stages"]["fetch_model"]
        prepare["outs"][0]["md5"] = "0.dir"
        fetched["params"]["params.yaml"]["fetch_model"]["revision"] = "old"

    present = (tmp_path / "dvc.lock").read_text()
    project.edit("dvc.lock", elsewhere)
    device = json.loads(project("python", "-c", MACHINE))
    there = device | {"threads": 8}
    (tmp_path / "results/metrics.json").write_text(json.dumps({"device_class": there}))
    project("git", "add", "-f", "results/metrics.json")
    project.commit("theirs")
    (tmp_path / "dvc.lock").write_text(present)
    said = explained()
    assert (
        "prepare is up to date gave other bytes than committed for the same inputs: data/prepared"
        in said
    )
    assert (
        "fetch_model is up to date read other inputs than in the committed dvc.lock: fetch_model."
        in said
    )
    assert ".revision 1110a2" in said and "was old" in said
    assert "the last bits of weights that are trained here will differ: threads 1, was 8" in said

    # A library of another version, and one file that is read.
    lock = YAML(typ="safe").load(present)
    pinned = lock["stages"]["prepare"]["params"]["pyproject.toml"]["tool.pins.pandas"]
    project.edit(
        "dvc.lock",
        lambda content: content["stages"]["prepare"]["params"]["pyproject.toml"].update(
            {"tool.pins.pandas": "1.0"}
        ),
    )
    project.append("stages/prepare.py", "\n")
    said = explained()
    assert f"tool.pins.pandas {pinned}, was 1.0" in said
    assert "stages/prepare.py changed" in said
    assert "library pandas 1.0, was" in said


MACHINE = """
import json
from stages.training.machine import configure
print(json.dumps(configure(threads=1).device_class()))
"""
