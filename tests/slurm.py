"""A SLURM cluster of two nodes on this machine, in name spaces of its own.

Debian's munge, slurmctld and two slurmd share the files of this machine and nothing else: network,
host names, processes and /etc/slurm are theirs alone, and node n2 does not see the processes of
n1, as on two machines. All of it ends when the process that started it does, however that ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "unshare", "nsenter", "ip")
SBIN = "/usr/sbin"
CONFIG = """\
ClusterName=test
SlurmctldHost=n1(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort=6817
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
MinJobAge=300
KillWait=5
MessageTimeout=60
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname=n1 Port=6821 CPUs=4 RealMemory=16000 Gres=gpu:1
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname=n2 Port=6822 CPUs=4 RealMemory=16000 Gres=gpu:1
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
FILES = {
    "slurm.conf": CONFIG,
    "cgroup.conf": "CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace=no\n",
    # Files that every machine has: SLURM hands out their numbers, nothing opens them.
    "gres.conf": "NodeName=n1 Name=gpu File=/dev/null\nNodeName=n2 Name=gpu File=/dev/zero\n",
    "hosts": "127.0.0.1 localhost n1 n2\n",
    # Process 1 of the name space: at its end the kernel ends all others. It reads its standard
    # input, which closes when the tests end or are killed.
    "init.sh": """\
set -eu
hostname n1
mount --bind {folder}/hosts /etc/hosts
mkdir -p /etc/slurm
mount --bind {folder} /etc/slurm
ip link set lo up
ip address add 192.0.2.1/32 dev lo  # names are looked up only where there is more than 127.0.0.1
munged --force --socket={folder}/munge.socket --key-file={folder}/munge.key \\
  --pid-file={folder}/munge.pid --log-file={folder}/munge.log --seed-file={folder}/munge.seed
slurmctld -D > {folder}/slurmctld.out 2>&1 &
slurmd -D -N n1 > {folder}/slurmd-n1.out 2>&1 &
unshare --mount --uts --pid --fork --mount-proc sh -c \\
  'hostname n2; exec slurmd -D -N n2' > {folder}/slurmd-n2.out 2>&1 &
touch {folder}/up
cat > /dev/null
""",
}


def missing() -> str:
    """Why no cluster can be started here; empty where it can."""
    path = f"{SBIN}:{os.environ['PATH']}"
    absent = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if absent:
        return f"needs SLURM and munge (apt-get install slurm-wlm munge iproute2): no {', '.join(absent)}"
    try:
        import snakemake_executor_plugin_slurm  # noqa: F401
    except ImportError:
        return "needs the package snakemake-executor-plugin-slurm"
    spaces = ("unshare", "--mount", "--uts", "--pid", "--net", "--fork", "true")
    if subprocess.run(spaces, check=False, capture_output=True).returncode:
        return "needs the right to make name spaces (root)"
    return ""


class Cluster:
    """Runs commands on the node n1 of a cluster."""

    def __init__(self, folder: Path, init: int) -> None:
        self.folder = folder
        self.enter = ("nsenter", f"--target={init}", "--mount", "--uts", "--net", "--pid")

    def command(self, *command: str) -> tuple[str, ...]:
        """The same command line, to be run in the cluster, in the present folder."""
        return (*self.enter, "--wd=.", *command)

    def __call__(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            self.command(*command), check=False, capture_output=True, text=True, env=path()
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def logs(self) -> str:
        files = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"{file.name}:\n{file.read_text()[-3000:]}" for file in files)


def path() -> dict[str, str]:
    return os.environ | {"PATH": f"{os.environ['PATH']}:{SBIN}"}


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Both nodes up and idle."""
    folder.mkdir(parents=True)
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text.format(folder=folder))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    spaces = ("unshare", "--mount", "--uts", "--pid", "--net", "--fork", "--kill-child")
    with (folder / "init.out").open("w") as output:
        process = subprocess.Popen(
            [*spaces, "--mount-proc", "sh", str(folder / "init.sh")],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the tests, which then end it
            env=path() | {"CLUSTER": str(folder)},
        )
    try:
        until(lambda: (folder / "up").exists() or process.poll() is not None)
        assert process.poll() is None, (folder / "init.out").read_text()
        (init,) = psutil.Process(process.pid).children()
        made = Cluster(folder, init.pid)
        idle = ("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N")
        until(lambda: made(*idle, check=False).split() == ["n1", "n2"], made.logs)
        yield made
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait()


def until(
    condition: Callable[[], object], logs: Callable[[], str] = str, seconds: float = 120
) -> None:
    """Wait for a condition; after `seconds` without it, fail with the logs."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain\n{logs()}"
        time.sleep(0.1)


def children(process: int) -> list[psutil.Process]:
    """A process and what it started, those in the cluster included."""
    try:
        parent = psutil.Process(process)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def daemons(folder: Path) -> list[psutil.Process]:
    """The processes of a cluster in a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(folder) in " ".join([*process.cmdline(), process.environ().get("CLUSTER", "")]):
                found.append(process)
    return found


if __name__ == "__main__":
    # `python -m tests.slurm --in FOLDER COMMAND...`: a command, or a shell, in a new cluster
    _, _, where, *words = sys.argv
    with cluster(Path(where)) as here:
        print("up", flush=True)
        subprocess.run(here.command(*(words or ["bash"])), check=False, env=path())
