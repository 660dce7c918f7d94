"""One process a stage at a time, and none that outlives the run that started it.

SIGKILL of `dvc repro` leaves the command that it started running, and the next run would start a
second one that writes the same files. So a stage that an engine started dies with it; and where it
does not (a shell stands between, another system than Linux), its successor waits for it.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path("results/run")
# The name that an engine gives to what it starts, one for each of a matrix. A command typed in a
# shell has none, and may outlive the shell.
ADDRESS = "DVC_STAGE"
HELD = "STAGE_HELD"  # by this process or the one that it works for


@contextmanager
def alone(stage: str) -> Iterator[None]:
    """Hold the right to run a stage, waiting for a process that has it.

    Workers that the stage starts, also those that run its command again, share its right.
    """
    address = os.environ.get(ADDRESS)
    if address:
        die_with_engine(address)
        stage = address
    if os.environ.get(HELD) == stage:
        yield
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / (re.sub(r"\W", "_", stage) + ".lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(stage, descriptor)
        os.environ[HELD] = stage
        yield
    finally:
        os.environ.pop(HELD, None)
        os.close(descriptor)


def _take(stage: str, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        print(
            f"{stage}: still being run by {holder or 'another process'}; waiting until it ends",
            file=sys.stderr,
            flush=True,
        )
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        return
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)


def die_with_engine(address: str) -> None:
    """SIGKILL, for which every stage is made, at the end of the engine that started this process,
    or of a shell in between."""
    if sys.platform != "linux":
        return
    watched = select.poll()
    try:
        for process in _up_to_engine(f"{ADDRESS}={address}".encode()):
            watched.register(os.pidfd_open(process), select.POLLIN)
    except OSError:  # it has just ended, or the kernel is older than 5.3: the lock has to do
        return

    def wait() -> None:
        watched.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def _up_to_engine(mark: bytes) -> Iterator[int]:
    """Processes above this one, up to the first whose environment has no `mark`: the engine gave
    it to its command."""
    process = os.getppid()
    while process > 0:
        yield process
        if mark not in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
            return
        status = Path(f"/proc/{process}/stat").read_text()
        process = int(status.rpartition(")")[2].split()[1])
