"""What stages ask for, GPU slots, and locks of the file system: without a cluster."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stages.errors import UserError
from tests import bridge
from tests.bridge import Copy
from tests.test_bridge_kills import until
from workflow import filesystem, gpus, machine

# A command notes its start and its GPUs, and waits to be let go.
WAIT = """\
echo $1 ${CUDA_VISIBLE_DEVICES-unset} >> $RUNLOG
while [ ! -e $RUNLOG.go ]; do sleep 0.05; done
echo $1 ended >> $RUNLOG; echo 1 > $1.txt
"""
STAGE = (
    "  {name}: {{cmd: sh wait.sh {name}, outs: [{name}.txt], meta: {{snakemake: {{{needs}}}}}}}\n"
)


def create(folder: Path, **needs: str) -> Copy:
    """A project of independent stages, each with what it asks for."""
    stages = "".join(STAGE.format(name=name, needs=text) for name, text in needs.items())
    return bridge.create(folder, {"wait.sh": WAIT, "dvc.yaml": f"stages:\n{stages}"})


def lines(copy: Copy) -> list[str]:
    return copy.log.read_text().splitlines() if copy.log.exists() else []


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """GPUs that no other test has."""
    monkeypatch.setenv(gpus.VISIBLE, f"a-{tmp_path.name},b-{tmp_path.name}")
    yield
    for slot in gpus.FOLDER.glob(f"*-{tmp_path.name}"):
        slot.unlink()


@pytest.fixture
def names() -> tuple[str, str]:
    first, second = gpus.devices()
    return first, second


def test_stages_of_two_runs_never_share_a_gpu(tmp_path: Path, names: tuple[str, str]) -> None:
    """Two projects, three stages that want one of two GPUs each: the third waits."""
    one = create(tmp_path / "one", x="gpu: 1", y="gpu: 1", free="threads: 1")
    two = create(tmp_path / "two", w="gpu: 1")
    first = one.start("snakemake", "--cores", "3")
    until(lambda: len(lines(one)) == 3)
    found = dict(line.split() for line in lines(one))
    assert {found["x"], found["y"]} == set(names)
    assert found["free"] == ",".join(names)  # asks for none: as by `dvc repro`
    second = two.start("snakemake", "--cores", "3")
    until(lambda: "w: waiting for a free GPU" in two.folder.with_suffix(".out").read_text())
    assert lines(two) == []
    Path(f"{one.log}.go").touch()
    assert first.wait() == 0
    until(lambda: len(lines(two)) == 1)
    assert lines(two)[0] in {f"w {name}" for name in names}
    Path(f"{two.log}.go").touch()
    assert second.wait() == 0


def test_gpus_and_memory_are_counted(tmp_path: Path, names: tuple[str, str]) -> None:
    """Stages that do not fit side by side run one after the other; one that asks for more than
    there is runs alone."""
    memory = psutil.virtual_memory().total // 2**20
    large = f"mem_mb: {memory * 6 // 10}"
    copy = create(tmp_path / "one", a=large, b=large, c="mem_mb: 99000000", d="gpu: 2", e="gpu: 3")
    Path(f"{copy.log}.go").touch()
    output = copy("snakemake", "--cores", "5")
    assert "e: asks for gpu: 3, this machine has 2" in output
    order = lines(copy)
    for one, other in (("a", "b"), ("b", "c"), ("a", "c"), ("d", "e")):
        spans = [sorted(i for i, line in enumerate(order) if line.split()[0] == n) for n in (one, other)]  # fmt: skip
        assert spans[0][1] < spans[1][0] or spans[1][1] < spans[0][0], order
    both = ",".join(names)
    assert {f"d {both}", f"e {both}"} <= set(order)


def test_a_killed_runner_frees_its_gpu_with_its_command(tmp_path: Path) -> None:
    copy = create(tmp_path / "one", x="gpu: 2")
    run = copy.start("snakemake", "--cores", "1")
    until(lambda: lines(copy))
    os.kill(int((copy.folder / ".dvc/tmp/bridge/x.lock").read_text().split()[-1]), signal.SIGKILL)
    assert run.wait() == 1
    with gpus.taken(2, "next") as descriptors:
        assert len(descriptors) == 2
    Path(f"{copy.log}.go").touch()


def test_what_slurm_gave_is_kept(monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]) -> None:
    """Each job may call its own GPU 0: two jobs do not wait for each other."""
    with contextlib.ExitStack() as jobs:
        for job in ("1", "2"):
            monkeypatch.setenv("SLURM_JOB_ID", job)
            jobs.enter_context(gpus.taken(2, job))
            assert os.environ[gpus.VISIBLE] == ",".join(names)


def test_a_machine_without_gpus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setenv(gpus.VISIBLE, "")
    with gpus.taken(1, "train") as descriptors:
        assert descriptors == []
        assert os.environ[gpus.VISIBLE] == ""
    assert capsys.readouterr().out == "train: asks for 1 GPU, here is none\n"


def test_more_than_there_is_becomes_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    needs = {"mem_mb": 9000, "runtime": 60, "slurm_extra": "-w n1"}
    assert machine.within("train", needs, {"mem_mb": 8000}) == needs | {"mem_mb": 8000}
    assert capsys.readouterr().err == "train: asks for mem_mb: 9000, this machine has 8000\n"


def test_locks_of_this_file_system_hold(tmp_path: Path) -> None:
    filesystem.check(tmp_path / "new", nodes=True)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_file_system_without_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As Lustre without -o flock answers."""

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"files cannot be locked \(flock: Function not impl.* Ask"):
        filesystem.check(tmp_path, nodes=False)
    assert list(tmp_path.iterdir()) == []


def test_locks_that_hold_nobody_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: None)
    with pytest.raises(UserError, match="holds no other process back"):
        filesystem.check(tmp_path, nodes=False)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("lustre", "rw,localflock"), ("nfs4", "rw,vers=4.2,local_lock=all"), ("nfs", "rw,nolock")],
)
def test_locks_that_other_nodes_do_not_see(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, options: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path} {kind} {options} 0 0\n")
    monkeypatch.setattr(filesystem, "MOUNTS", mounts)
    filesystem.check(tmp_path / "here", nodes=False)
    with pytest.raises(UserError, match=rf"do not see its locks \({kind}, mounted with "):
        filesystem.check(tmp_path / "here", nodes=True)
