"""DVC's experiments in this project, and what docs/experiments.md says of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests import team
from tests.project import RAN, Project

PAGE = (Path(__file__).parent.parent / "docs/experiments.md").read_text()


def _names(project: Project) -> list[str]:
    return re.findall(r"^\w{7} +([\w-]+) ", project("dvc", "queue", "status"), re.MULTILINE)


def test_the_queue_ran_both(ann: Project) -> None:
    (baseline,) = json.loads(ann("dvc", "exp", "show", "--json"))[1:]
    rates = {
        experiment["revs"][0]["data"]["params"]["params.yaml"]["data"]["finetune"]["learning_rate"]
        for experiment in baseline["experiments"]
    }
    assert rates == set(map(float, team.RATES))


def test_the_documented_table_is_readable(ann: Project) -> None:
    (options,) = re.findall(r"`dvc exp show (--no-pager .*?)`", PAGE)
    command = [option.strip("'") for option in options.split()]
    output = ann("dvc", "exp", "show", *command, COLUMNS="80")
    for shown in (*_names(ann), *team.RATES, "learning_rate", "metrics.accuracy.value"):
        assert shown in output
    assert "…" not in output


def test_apply_and_branch(ann: Project, tmp_path: Path) -> None:
    copy = team.copy(ann, tmp_path / "copy")
    first, second = _names(ann)
    copy("dvc", "exp", "apply", first)
    assert "up to date" in copy("dvc", "status", "dvc.yaml")
    output = copy("snakemake")
    assert "Nothing to be done" in output
    assert not RAN.findall(output)
    copy("git", "stash", "-q")
    copy("dvc", "exp", "branch", second, "faster")
    copy("git", "checkout", "-q", "faster")
    copy("dvc", "checkout", "-q")
    assert copy.repro() == set()


def test_an_experiment_of_known_parameters_runs_nothing(ann: Project, tmp_path: Path) -> None:
    copy = team.copy(ann, tmp_path / "copy")
    output = copy("dvc", "exp", "run", "-S", f"finetune.learning_rate={team.RATES[1]}")
    assert not RAN.findall(output)
    assert "up to date" in copy("dvc", "status", "dvc.yaml")
