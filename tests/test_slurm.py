"""Stages as SLURM jobs on two nodes, with what they ask for, and the same results."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bridge, project, slurm
from tests.slurm import Cluster, until

WHY = slurm.missing()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)

PROJECT = {
    "in.txt": "1\n",
    "dvc.yaml": """\
stages:
  cell:
    matrix: {node: [n1, n2], seed: [1, 2]}
    cmd: >-
      echo cell_${item.node} on $(hostname) >> $RUNLOG;
      scontrol --oneliner show job $SLURM_JOB_ID > $RUNLOG.${key};
      echo ${item.seed} > cell_${key}.txt
    deps: [in.txt]
    outs: ["cell_${key}.txt"]
    meta: {snakemake: {threads: 3, mem_mb: 300, runtime: 7, slurm_extra: "-w ${item.node}"}}
  graphics:
    cmd: >-
      echo graphics on $(hostname) >> $RUNLOG; echo $CUDA_VISIBLE_DEVICES > $RUNLOG.gpu;
      scontrol --oneliner show job $SLURM_JOB_ID > $RUNLOG.graphics; echo 1 > graphics.txt
    outs: [graphics.txt]
    meta: {snakemake: {gpu: 1}}
  join:
    cmd: echo join on $(hostname) >> $RUNLOG; cat cell_*.txt > all.txt
    deps: [cell_n1-1.txt, cell_n1-2.txt, cell_n2-1.txt, cell_n2-2.txt]
    outs: [all.txt]
    meta: {snakemake: {local: true}}
""",
}
# What another cluster may need too, but for the seconds: no database of jobs, no accounts.
HERE = (
    "--slurm-status-command=squeue",
    "--slurm-no-account",
    "--slurm-init-seconds-before-status-checks=1",
    "--seconds-between-status-checks=1",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with slurm.cluster(tmp_path_factory.mktemp("slurm") / "c") as made:
        yield made


def test_a_matrix_runs_on_both_nodes_with_what_it_asks_for(
    cluster: Cluster, tmp_path: Path
) -> None:
    base = bridge.create(tmp_path / "dvc", PROJECT)
    copy = bridge.duplicate(base, tmp_path / "copy")
    copy(*cluster.command("snakemake", "--workflow-profile", "slurm", *HERE))
    ran = copy.log.read_text().splitlines()
    assert sorted(ran)[:4] == ["cell_n1 on n1"] * 2 + ["cell_n2 on n2"] * 2
    assert "join on n1" in ran  # where Snakemake runs
    cell = Path(f"{copy.log}.n1-1").read_text()
    assert re.search(r" NumCPUs=(3|4) ", cell)
    assert " CPUs/Task=3 " in cell
    assert " MinMemoryNode=300M " in cell
    assert " TimeLimit=00:07:00 " in cell
    graphics = Path(f"{copy.log}.graphics").read_text()
    assert "gpu:1" in graphics
    assert " MinMemoryNode=4000M " in graphics  # the profile's
    assert " TimeLimit=01:00:00 " in graphics
    assert Path(f"{copy.log}.gpu").read_text() == "0\n"
    assert "up to date" in copy("dvc", "status")
    base.shell("mkdir bin; printf '#!/bin/sh\\n' > bin/scontrol; chmod +x bin/scontrol")
    base("sh", "-c", "PATH=$PWD/bin:$PATH dvc repro; rm -r bin")
    assert copy.tree() == base.tree()


def test_nothing_is_left_of_a_cluster_whose_tests_are_killed(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    killed = subprocess.Popen(
        ["python", "-m", "tests.slurm", "--in", str(folder), "sleep", "600"],
        cwd=bridge.ROOT,
        env=project.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout
    assert killed.stdout.readline() == "up\n"
    assert slurm.daemons(folder)
    killed.kill()
    killed.wait()
    until(lambda: not slurm.daemons(folder))
