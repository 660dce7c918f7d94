"""Which GPUs a stage may use: a lock for each device of this machine.

Snakemake counts GPUs, but tells no stage which ones are its own, and a second run counts anew. A
stage with `gpu: N` in its `meta` finds N free devices in CUDA_VISIBLE_DEVICES; no other stage of
any run on this machine has them meanwhile, whoever started it.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
FOLDER = Path("/tmp/gpu-slots")  # of the machine, not of a project: projects share its GPUs


def devices() -> list[str]:
    """The GPUs that this process may use: what CUDA_VISIBLE_DEVICES says, else all there are."""
    if VISIBLE in os.environ:
        return [name for part in os.environ[VISIBLE].split(",") if (name := part.strip())]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return found.stdout.split()


@contextmanager
def taken(wanted: int, address: str) -> Iterator[list[int]]:
    """Have `wanted` GPUs to oneself, named in CUDA_VISIBLE_DEVICES; waits while others have them.

    Where there are fewer, all there are; where there is none, the variable is left alone, so that
    the stage does what it does by `dvc repro`.

    Yields:
        Descriptors of the locks, which the command must inherit: a runner that is killed frees
        its GPUs when its command is dead too.
    """
    present = devices() if wanted else []
    if wanted > len(present):
        there = f"only {len(present)}" if present else "none"
        print(f"{address}: asks for {wanted} GPU{'s' * (wanted > 1)}, here is {there}", flush=True)
    descriptors: list[int] = []
    try:
        if present:
            names, descriptors = _lock(present, min(wanted, len(present)), address)
            os.environ[VISIBLE] = ",".join(names)
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _lock(present: list[str], wanted: int, address: str) -> tuple[list[str], list[int]]:
    """The first devices that are free. One stage at a time looks for them, so that two that want
    several cannot hold a part each and wait for the other."""
    waiting = False
    with _opened("queue") as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        slots: dict[str, int] = {}
        while True:
            for name in present:
                if name not in slots and len(slots) < wanted:
                    descriptor = _open(name)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        slots[name] = descriptor
                    except OSError:
                        os.close(descriptor)
            if len(slots) == wanted:
                names = [name for name in present if name in slots]
                return names, [slots[name] for name in names]
            if not waiting:
                print(f"{address}: waiting for a free GPU", flush=True)
            waiting = True
            time.sleep(0.2)


@contextmanager
def _opened(name: str) -> Iterator[int]:
    descriptor = _open(name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(name: str) -> int:
    """The file that is locked for a device, which users of this machine share.

    In a SLURM job the devices are the job's own and may be counted from 0 in each job.
    """
    if not FOLDER.is_dir():
        FOLDER.mkdir(exist_ok=True)
        FOLDER.chmod(0o1777)
    job = os.environ.get("SLURM_JOB_ID")
    file = FOLDER / re.sub(r"[^\w-]", "_", f"job-{job}-{name}" if job else name)
    try:
        return os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        if os.fstat(descriptor).st_uid == os.getuid():
            os.fchmod(descriptor, 0o644)  # whatever the umask, others can lock it
        return descriptor
