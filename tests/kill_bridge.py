"""SIGKILL at random moments of random victims during a run of a matrix; nothing may be lost.

Run: `python -m tests.kill_bridge 100` (about 5 seconds a kill)
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from tests import bridge
from tests.bridge import Copy

SNAKEMAKE = ("snakemake", "--cores", "2")
DVC = ("dvc", "repro")
MATRIX = {
    "in.txt": "1\n",
    "dvc.yaml": """\
stages:
  part:
    matrix: {n: [5, 3, 1, 2, 4]}
    cmd: echo part@${item.n} >> $RUNLOG; sleep 0.${item.n}; cat in.txt > o${item.n}
    deps: [in.txt]
    outs: ["o${item.n}"]
  sum:
    cmd: echo sum >> $RUNLOG; cat o1 o2 o3 o4 o5 > all
    deps: [o1, o2, o3, o4, o5]
    outs: [all]
""",
}


def finished(copy: Copy) -> set[str]:
    """Stages whose result DVC has, or that are noted as finished."""
    folder = copy.folder / ".dvc/tmp/bridge"
    lock = copy.folder / "dvc.lock"
    text = lock.read_text() if lock.exists() else ""
    names = [f"part@{n}" for n in range(1, 6)] + ["sum"]
    return {
        name
        for name in names
        if f"\n  {name}:\n" in text or list(folder.glob(f"{name.replace('@', '_')}*.json"))
    }


def kill_somebody(run: subprocess.Popen[str], draw: random.Random) -> None:
    """SIGKILL one of the engine, the runners and what they are forked from, the supervisors and
    the commands."""
    with suppress(psutil.NoSuchProcess):
        tree = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
        draw.choice(tree).kill()
        if run.args == DVC:  # stages die with it (tests/test_alone.py); these are shells
            psutil.wait_procs(tree[1:])


def random_kills(copy: Copy, draw: random.Random, kills: int) -> tuple[int, bool]:
    """Kill that often, each followed by a plain run's start.

    Returns:
        How many kills met a run, and whether a `dvc repro` failed, its command being killed.
    """
    met, failed = 0, False
    for _ in range(kills):
        before, runs = finished(copy), copy.log.read_text().split() if copy.log.exists() else []
        run = copy.start(*draw.choice([SNAKEMAKE, SNAKEMAKE, SNAKEMAKE, DVC]))
        with suppress(subprocess.TimeoutExpired):
            run.wait(timeout=draw.uniform(0.5, 6))
        met += run.poll() is None
        kill_somebody(run, draw)
        failed |= run.wait() > 0 and run.args == DVC
        started_since = copy.log.read_text().split()[len(runs) :] if copy.log.exists() else []
        assert not before & set(started_since), "a finished stage ran again"
    return met, failed


def check(seed: int, kills: int, folder: Path) -> int:
    """Kill, then run once plainly: as if nothing had been killed. How many kills met a run."""
    base = bridge.create(folder / "base", MATRIX)
    calm, copy = (bridge.duplicate(base, folder / name) for name in ("calm", "copy"))
    calm("dvc", "repro")
    met, failed = random_kills(copy, random.Random(seed), kills)
    copy(*SNAKEMAKE)
    if failed:  # DVC has taken back the lines of what it finished before (SCMContext.__call__)
        for each in (calm, copy):
            each("git", "checkout", ".gitignore")
    differences = bridge.differences(copy, calm)
    assert not differences, "\n".join(differences)
    assert copy.run("dvc").ran == []
    return met


def main() -> int:
    kills, met, seed = int(sys.argv[1]), 0, 0
    while met < kills:  # a matrix is done after some
        with tempfile.TemporaryDirectory() as folder:
            met += check(seed, min(6, kills - met), Path(folder))
        seed += 1
        print(f"{met} kills in {seed} matrices, nothing lost", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
