"""SIGKILL of anything, two runs at once, edits during a run: the next plain run just works."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from dvc_objects.fs.utils import tmp_fname

from tests import bridge, kill_bridge
from tests.bridge import Copy

PROJECT = {
    "in.txt": "1\n",
    # A command notes its start and process, then waits to be let go.
    "wait.sh": """\
echo $1 >> $RUNLOG; echo $$ > $RUNLOG.pid
while [ ! -e $RUNLOG.go ]; do sleep 0.05; done
""",
    "dvc.yaml": """\
stages:
  train:
    cmd: sh wait.sh train && cat in.txt > model
    deps: [in.txt]
    outs: [model]
  evaluate:
    cmd: echo evaluate >> $RUNLOG; cat model > score
    deps: [model]
    outs: [score]
""",
}
SNAKEMAKE = ("snakemake", "--cores", "2")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return bridge.create(tmp_path_factory.mktemp("base") / "base", PROJECT)


@pytest.fixture
def copy(base: Copy, tmp_path: Path) -> Iterator[Copy]:
    made = bridge.duplicate(base, tmp_path / "copy")
    yield made
    Path(f"{made.log}.go").touch()  # let what is left end


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def started(copy: Copy) -> int:
    """Wait until the command of `train` runs; its process."""
    noted = Path(f"{copy.log}.pid")
    until(lambda: noted.exists() and noted.read_text().strip())
    return int(noted.read_text())


def let_go(copy: Copy) -> None:
    Path(f"{copy.log}.go").touch()


def runner(copy: Copy, stage: str = "train") -> int:
    return int((copy.folder / f".dvc/tmp/bridge/{stage}.lock").read_text().split()[-1])


def is_done(copy: Copy, ran: list[str]) -> None:
    """All is as one undisturbed `dvc repro` would leave it, and only `ran` was started."""
    assert copy.log.read_text().split() == ran
    assert (copy.folder / "score").read_text() == (copy.folder / "in.txt").read_text()
    assert "up to date" in copy("dvc", "status")
    assert copy.run("dvc").ran == []


def test_the_command_is_killed(copy: Copy) -> None:
    run = copy.start(*SNAKEMAKE)
    os.kill(started(copy), signal.SIGKILL)
    assert run.wait() == 1
    let_go(copy)
    copy(*SNAKEMAKE)
    is_done(copy, ["train", "train", "evaluate"])


def test_the_runner_is_killed(copy: Copy) -> None:
    """The command dies with it, so that it cannot write into the next run."""
    run = copy.start(*SNAKEMAKE)
    command = started(copy)
    os.kill(runner(copy), signal.SIGKILL)
    assert bridge.has_ended(command)
    assert run.wait() == 1
    let_go(copy)
    copy(*SNAKEMAKE)
    is_done(copy, ["train", "train", "evaluate"])


def test_snakemake_is_killed(copy: Copy) -> None:
    """The stage goes on and is recorded; the next run waits for it instead of starting it."""
    run = copy.start(*SNAKEMAKE)
    started(copy)
    run.kill()
    run.wait()
    again = copy.start(*SNAKEMAKE)
    output = copy.folder.with_suffix(".out")
    until(lambda: "train: being run by" in output.read_text())
    let_go(copy)
    assert again.wait() == 0
    is_done(copy, ["train", "evaluate"])


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_snakemake_is_asked_to_stop(copy: Copy, signum: signal.Signals) -> None:
    """As by Ctrl-C, which all processes of the terminal get, and as by a cluster's scheduler."""
    run = copy.start(*SNAKEMAKE)
    command = started(copy)
    for process in [run.pid, *(p.pid for p in psutil.Process(run.pid).children(recursive=True))]:
        with contextlib.suppress(ProcessLookupError):  # it may have ended meanwhile
            if os.getsid(process) == os.getsid(0):
                os.kill(process, signum)
    assert run.wait() != 0
    assert bridge.has_ended(command)
    let_go(copy)
    copy(*SNAKEMAKE)
    is_done(copy, ["train", "train", "evaluate"])


def test_plain_dvc_follows_a_killed_run(copy: Copy) -> None:
    """No lock is left that only we could free."""
    run = copy.start(*SNAKEMAKE)
    command = started(copy)
    run.kill()
    os.kill(runner(copy), signal.SIGKILL)
    assert bridge.has_ended(command)
    let_go(copy)
    copy("dvc", "repro")
    is_done(copy, ["train", "train", "evaluate"])


def test_two_runs_at_once_share_the_work(copy: Copy) -> None:
    first = copy.start(*SNAKEMAKE)
    started(copy)
    second = copy.start(*SNAKEMAKE)
    output = copy.folder.with_suffix(".out")
    until(lambda: "train: being run by" in output.read_text())
    let_go(copy)
    assert (first.wait(), second.wait()) == (0, 0)
    is_done(copy, ["train", "evaluate"])


def test_snakemake_waits_for_plain_dvc(copy: Copy) -> None:
    first = copy.start("dvc", "repro")
    started(copy)
    second = copy.start(*SNAKEMAKE)
    output = copy.folder.with_suffix(".out")
    until(lambda: "is busy" in output.read_text())
    let_go(copy)
    assert (first.wait(), second.wait()) == (0, 0)
    is_done(copy, ["train", "evaluate"])


def test_plain_dvc_is_refused_while_snakemake_runs_the_stage(copy: Copy) -> None:
    run = copy.start(*SNAKEMAKE)
    started(copy)
    assert "is busy" in copy("dvc", "repro", check=False)
    let_go(copy)
    assert run.wait() == 0
    is_done(copy, ["train", "evaluate"])


@pytest.mark.parametrize("later", ["1\n", "2\n"])
def test_a_dependency_edited_during_the_run(copy: Copy, later: str) -> None:
    """DVC would record the new content as what was used. Nor is the result used later, where
    the old content is back."""
    run = copy.start(*SNAKEMAKE)
    started(copy)
    (copy.folder / "in.txt").write_text("2\n")
    let_go(copy)
    assert run.wait() == 1
    output = copy.folder.with_suffix(".out").read_text()
    assert "in.txt changed while 'train' ran, so its result is not recorded" in output
    (copy.folder / "in.txt").write_text(later)
    copy(*SNAKEMAKE)
    is_done(copy, ["train", "train", "evaluate"])


def test_a_result_that_cannot_be_recorded_is_recorded_by_the_next_run(copy: Copy) -> None:
    """As when the disk of the cache is full."""
    let_go(copy)
    cache = copy.folder / ".dvc/cache/files"
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("in the way")
    assert "ERROR: train" in copy(*SNAKEMAKE, check=False)
    cache.unlink()
    assert "Stage 'train' had finished; recording its outputs" in copy(*SNAKEMAKE)
    is_done(copy, ["train", "evaluate"])


@pytest.fixture
def small_disk(copy: Copy) -> Iterator[Callable[[str], None]]:
    """The cache on a disk of its own of 1 MB; the function changes its size."""
    cache = copy.folder / ".dvc/cache"
    cache.mkdir(exist_ok=True)
    mount = ("mount", "-t", "tmpfs", "-o")
    if subprocess.run([*mount, "size=1m", "none", cache], check=False).returncode:
        pytest.skip("needs the right to mount")

    def resize(size: str) -> None:
        copy("mount", "-o", f"remount,size={size}", str(cache))

    yield resize
    subprocess.run(["umount", "--lazy", cache], check=True)


def test_a_full_disk(copy: Copy, small_disk: Callable[[str], None]) -> None:
    """The result is recorded by the next run, and half copies do not stay in the cache."""
    let_go(copy)
    (copy.folder / "in.txt").write_text("0123456789abcde\n" * 200_000)
    assert "No space left on device" in copy(*SNAKEMAKE, check=False)
    cache = copy.folder / ".dvc/cache"
    (cache / "files/md5/00").mkdir(parents=True, exist_ok=True)
    small_disk("20m")
    (cache / "files/md5/00/.0123456789.tmp").write_text("as DVC names them")
    for file in cache.rglob("*.tmp"):
        os.utime(file, (1, 1))  # nobody is writing it any more
    fresh = cache / "files/md5/00/.abcdefghij.tmp"
    fresh.write_text("of a fetch that goes on beside this run")
    assert "Stage 'train' had finished; recording its outputs" in copy(*SNAKEMAKE)
    assert list(cache.rglob("*.tmp")) == [fresh]
    is_done(copy, ["train", "evaluate"])


def test_an_unrecorded_result_of_other_inputs_is_not_used(copy: Copy) -> None:
    let_go(copy)
    cache = copy.folder / ".dvc/cache/files"
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("in the way")
    copy(*SNAKEMAKE, check=False)
    cache.unlink()
    (copy.folder / "in.txt").write_text("2\n")
    copy(*SNAKEMAKE)
    is_done(copy, ["train", "train", "evaluate"])


def test_a_torn_file_of_path_locks(copy: Copy) -> None:
    let_go(copy)
    (copy.folder / ".dvc/tmp/rwlock").write_text('{"write": {"/')
    copy(*SNAKEMAKE)
    is_done(copy, ["train", "evaluate"])


def test_runs_in_a_cluster_hold_on_every_node(copy: Copy) -> None:
    """Plain DVC in another namespace of processes, as on another node, cannot find the runner."""
    node = ("unshare", "--pid", "--fork", "--mount-proc")
    if subprocess.run([*node, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to make a namespace of processes")
    run = copy.start("env", "SLURM_JOB_ID=1", *SNAKEMAKE)
    command = started(copy)
    assert "is busy" in copy(*node, "dvc", "repro", check=False)
    run.kill()
    os.kill(runner(copy), signal.SIGKILL)
    assert bridge.has_ended(command)
    let_go(copy)
    copy(*SNAKEMAKE)
    is_done(copy, ["train", "train", "evaluate"])


def test_half_written_files_do_not_stay_in_the_work_tree(copy: Copy) -> None:
    """Also where nothing is left to do. The names are those that DVC gives."""
    let_go(copy)
    copy(*SNAKEMAKE)
    half = [tmp_fname(), tmp_fname(), "dvc.lock.123.partial", ".gitignore.12.partial"]
    for name in [*half, ".mine.tmp", "mine.partial"]:
        (copy.folder / name).write_text("half")
    copy(*SNAKEMAKE)
    assert not [name for name in half if (copy.folder / name).exists()]
    assert (copy.folder / ".mine.tmp").exists() and (copy.folder / "mine.partial").exists()


def test_dvc_goes_on_where_a_killed_run_stopped(tmp_path: Path) -> None:
    """The entries of the killed run and those of `dvc repro` are in the order of one run."""
    base = bridge.create(tmp_path / "base", kill_bridge.MATRIX)
    calm, copy = (bridge.duplicate(base, tmp_path / name) for name in ("calm", "copy"))
    calm("dvc", "repro")
    run = copy.start("snakemake", "--cores", "5")
    until(lambda: "part@1:" in lock_of(copy))
    assert "part@5:" not in lock_of(copy)
    run.kill()
    run.wait()
    until(lambda: "is busy" not in copy("dvc", "repro", check=False))  # runners are about to die
    copy(*SNAKEMAKE)
    assert not bridge.differences(copy, calm)


def lock_of(copy: Copy) -> str:
    lock = copy.folder / "dvc.lock"
    return lock.read_text() if lock.exists() else ""


def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    assert kill_bridge.check(seed=1, kills=4, folder=tmp_path) > 0
