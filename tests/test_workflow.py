"""The project's own Snakefile, as users and the Snakemake workflow catalogue find it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests import project
from tests.project import ROOT, Project

STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return project.make(tmp_path_factory.mktemp("tiny"))


def test_lint_is_clean(tiny: Project) -> None:
    assert "your workflow is in a good condition" in tiny("snakemake", "--lint")


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_each_stage_is_planned_with_its_reason(tiny: Project, snakefile: str) -> None:
    said = tiny("snakemake", "--snakefile", snakefile, "--dry-run").splitlines()
    planned = [line.split(maxsplit=2) for line in said if line.startswith(("run ", "maybe "))]
    assert sorted(name for _, name, _ in planned) == sorted(STAGES)
    assert [why for _, name, why in planned if name == "prepare"] == ["has not run yet"]


def test_the_picture_has_each_stage(tiny: Project) -> None:
    picture = tiny("snakemake", "--dag")
    assert "digraph" in picture
    assert [name for name in STAGES if f'label = "{name}"' not in picture] == []


def test_what_the_catalogue_asks_for() -> None:
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme and "workflow" in readme
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    configuration = (ROOT / "config/README.md").read_text()
    named = [word.strip("`.,") for word in configuration.split() if word.startswith("`")]
    files = [n for n in named if n.endswith((".yaml", ".md", "/")) and n != "config.yaml"]
    assert files
    assert [name for name in files if not Path(ROOT / name).exists()] == []


def test_the_lines_of_the_snakefile() -> None:
    assert len((ROOT / "Snakefile").read_text().splitlines()) <= 40
