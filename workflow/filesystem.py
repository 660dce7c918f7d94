"""Whether the file system of the project carries the locks that keep stages apart.

Network file systems need not: then two runners would take the same stage, and both would write.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from stages.errors import UserError

MOUNTS = Path("/proc/self/mounts")
# Mount options with which locks work, but are seen on this node only.
ON_THIS_NODE = {"localflock", "nolock", "local_lock=flock", "local_lock=all"}
ASK = (
    "Ask for a mount that carries flock (Lustre: -o flock; NFS: version 4, or a running lockd), or "
    "put the project on another file system"
)
TRY = "import fcntl, sys; fcntl.flock(0, fcntl.LOCK_EX | fcntl.LOCK_NB)"


def check(folder: Path, *, nodes: bool) -> None:
    """Lock a file in the folder as runners do, and see that another process cannot.

    Args:
        nodes: whether other nodes must see the locks too.

    Raises:
        UserError: the locks do not hold; says what to do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"locks-{os.uname().nodename}-{os.getpid()}"
    try:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _can_be_locked_elsewhere(path):
                raise UserError(f"{folder}: a lock (flock) holds no other process back. {ASK}")
    except OSError as error:
        raise UserError(
            f"{folder}: files cannot be locked (flock: {error.strerror}). {ASK}"
        ) from None
    finally:
        path.unlink(missing_ok=True)
    kind, options = mount(folder.resolve(), MOUNTS.read_text() if MOUNTS.exists() else "")
    if nodes and (found := sorted(ON_THIS_NODE & set(options.split(",")))):
        raise UserError(
            f"{folder}: other nodes do not see its locks ({kind}, mounted with {found[0]}). {ASK}"
        )


def mount(folder: Path, mounts: str) -> tuple[str, str]:
    """Kind and options of the mount that a folder is on, from the text of /proc/self/mounts."""
    best, found = "", ("", "")
    for line in mounts.splitlines():
        _, point, kind, options, *_ = line.split()
        point = point.replace("\\040", " ")
        if folder.is_relative_to(point) and len(point) >= len(best):
            best, found = point, (kind, options)
    return found


def _can_be_locked_elsewhere(path: Path) -> bool:
    """By another process: on NFS, the locks of one process do not exclude each other."""
    with path.open("r+") as other:
        command = [sys.executable, "-ISE", "-c", TRY]
        return not subprocess.run(command, stdin=other, capture_output=True, check=False).returncode
