"""Stages as SLURM jobs on two nodes: the same results, reported cancellations, locks that hold."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import bridge, project, slurm
from tests.bridge import Copy
from tests.slurm import Cluster, until

WHY = slurm.missing()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)

PROJECT = {
    "in.txt": "1\n",
    "wait.sh": """\
echo $1 on $(hostname) >> $RUNLOG; echo $SLURM_JOB_ID > $RUNLOG.job
while [ ! -e $RUNLOG.go ]; do sleep 0.05; done
""",
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
SLOW = PROJECT | {
    "dvc.yaml": """\
stages:
  train:
    cmd: sh wait.sh train && cat in.txt > model
    deps: [in.txt]
    outs: [model]
    meta: {snakemake: {slurm_extra: "-w n2"}}
  evaluate:
    cmd: echo evaluate on $(hostname) >> $RUNLOG; cat model > score
    deps: [model]
    outs: [score]
    meta: {snakemake: {slurm_extra: "-w n1"}}
"""
}
# What another cluster may need too, but for the seconds: no database of jobs, no accounts.
HERE = (
    "--slurm-status-command=squeue",
    "--slurm-no-account",
    "--slurm-init-seconds-before-status-checks=1",
    "--seconds-between-status-checks=1",
)
SNAKEMAKE = ("snakemake", "--workflow-profile", "slurm", *HERE)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with slurm.cluster(tmp_path_factory.mktemp("slurm") / "c") as made:
        yield made


@pytest.fixture
def slow(cluster: Cluster, tmp_path: Path) -> Iterator[Copy]:
    made = bridge.create(tmp_path / "copy", SLOW)
    yield made
    Path(f"{made.log}.go").touch()  # let what is left end


def output(copy: Copy) -> str:
    return copy.folder.with_suffix(".out").read_text()


def job(copy: Copy) -> str:
    """Wait until the command of `train` runs; SLURM's number of its job."""
    noted = Path(f"{copy.log}.job")
    until(lambda: noted.exists() and noted.read_text().strip(), lambda: output(copy))
    return noted.read_text().strip()


def is_done(copy: Copy, ran: list[str]) -> None:
    assert copy.log.read_text().splitlines() == ran
    assert "up to date" in copy("dvc", "status")
    assert copy.run("dvc").ran == []


def test_a_matrix_runs_on_both_nodes_with_what_it_asks_for(
    cluster: Cluster, tmp_path: Path
) -> None:
    base = bridge.create(tmp_path / "dvc", PROJECT)
    copy = bridge.duplicate(base, tmp_path / "copy")
    copy(*cluster.command(*SNAKEMAKE))
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


def test_the_default_pipeline(cluster: Cluster, tmp_path: Path) -> None:
    """Another run of the same project by DVC, here, gives the same lock file."""
    folders = [tmp_path / engine for engine in ("slurm", "dvc")]
    by_slurm, by_dvc = (project.make(folder, rows=60) for folder in folders)
    said = by_slurm(
        *cluster.command(
            "snakemake", "--profile", "workflow/profiles/slurm", "--workflow-profile", "none", *HERE
        )
    )
    assert said.count("has been submitted with SLURM jobid") == 8
    by_dvc.repro()
    locks = [yaml.safe_load((folder / "dvc.lock").read_text()) for folder in folders]
    assert locks[0] == locks[1]
    assert by_slurm.repro() == set()


def test_a_cancelled_job_is_reported_and_its_rerun_works(cluster: Cluster, slow: Copy) -> None:
    run = slow.start(*cluster.command(*SNAKEMAKE))
    cluster("scancel", job(slow))
    assert run.wait() == 1, output(slow)
    assert re.search(r"status is: 'CANCELLED", output(slow)), output(slow)
    Path(f"{slow.log}.go").touch()
    slow(*cluster.command(*SNAKEMAKE))
    is_done(slow, ["train on n2", "train on n2", "evaluate on n1"])


def test_a_stage_runs_once_whoever_asks_on_whichever_node(cluster: Cluster, slow: Copy) -> None:
    """Plain DVC on n1, which cannot see the processes of n2, is refused; a second Snakemake,
    which sends the stage to n1 after the first one was killed, waits for it."""
    first = slow.start(*cluster.command(*SNAKEMAKE))
    job(slow)
    refused = slow(*cluster.command("dvc", "repro"), check=False)
    assert "is busy" in refused
    assert "@n2 " in refused  # who has it
    for process in slurm.children(first.pid):
        process.send_signal(signal.SIGKILL)
    first.wait()
    second = slow.start(*cluster.command(*SNAKEMAKE, "--set-resources", "train:slurm_extra=-w n1"))
    log = slow.folder / ".dvc/tmp/bridge/train.log"
    until(
        lambda: log.exists() and "train: being run by n2" in log.read_text(), lambda: output(slow)
    )
    Path(f"{slow.log}.go").touch()
    assert second.wait() == 0, output(slow)
    is_done(slow, ["train on n2", "evaluate on n1"])


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
