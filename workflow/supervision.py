"""One runner a stage, and no orphans: locks and processes that behave under SIGKILL.

Run: `python workflow/supervision.py COMMAND...`, the parent of each stage's command. It is
started in isolated mode for speed, so this file needs nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER = Path(".dvc/tmp/bridge")  # of the project; neither git nor DVC looks in there
HOST = os.uname().nodename
INHERITED, RUNNER = "BRIDGE_INHERITED", "BRIDGE_RUNNER"  # from a runner to the supervisor
RULES = {"all", "restore"}  # of the Snakefile itself
GRACE = 10  # seconds from SIGTERM to SIGKILL


def token(address: str) -> str:
    """A stage's name as the name of a rule and of files: letters, digits, underscores."""
    plain = re.sub(r"\W", "_", address, flags=re.ASCII).lstrip("_")
    if plain == address and not plain[0].isdigit() and plain not in RULES:
        return plain
    prefix = "stage_" if plain[:1].isdigit() else ""
    return f"{prefix}{plain}_{hashlib.sha256(address.encode()).hexdigest()[:6]}"


def _lock_file(address: str) -> Path:
    return FOLDER / f"{token(address)}.lock"


@contextmanager
def stage_lock(address: str) -> Iterator[int]:
    """Hold the right to run a stage; yields the descriptor that the command must inherit.

    It is a lock of the kernel, held until the last process that has the descriptor is gone: a
    runner killed by SIGKILL frees it, but not before its command is dead too, on any node whose
    file system carries flock.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(_lock_file(address), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            print(f"{address}: being run by {holder or 'another process'}; waiting", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{HOST}, process {os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def is_running(address: str) -> bool:
    """Whether any process, on any node, holds the lock of a stage."""
    try:
        descriptor = os.open(_lock_file(address), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two that ask at once do not take each other for the runner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def die_with_parent(signum: int) -> None:
    """Ask the kernel to signal this process when the thread that started it ends."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signum, 0, 0, 0)


def supervise(command: list[str]) -> int:
    """Run a command in a process group of its own, which does not outlive the runner.

    A signal to the supervisor, or the death of the runner, ends the whole group: SIGTERM, and
    SIGKILL after `GRACE` seconds. The death of the supervisor itself kills the command.
    """
    runner = int(os.environ.pop(RUNNER))
    descriptors = [int(part) for part in os.environ.pop(INHERITED).split(",") if part]
    asked: list[int] = []

    def note(signum: int, frame: object) -> None:
        asked.append(signum)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, note)
    die_with_parent(signal.SIGTERM)
    if os.getppid() != runner:  # it died before the line above
        return 128 + signal.SIGTERM
    child = subprocess.Popen(
        command,
        start_new_session=True,
        pass_fds=descriptors,
        preexec_fn=lambda: die_with_parent(signal.SIGKILL),  # noqa: PLW1509 (no threads here)
    )

    def end(signum: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL if signum == signal.SIGALRM else signum)
        if signum != signal.SIGALRM:
            signal.alarm(GRACE)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(signum, end)
    if asked:
        end(asked[0], None)
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1:]))
