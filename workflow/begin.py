"""What a rule's shell calls: hands its stage to a process that is ready (workflow/runners.py).

Run: `python -ISE workflow/begin.py ARGUMENTS`, those of `python -m workflow.run_stage`, which it
becomes where no such process is: on another node, or where it has been killed. It is started in
isolated mode for speed, so this file needs nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

VARIABLE = "BRIDGE_RUNNERS"  # the path of the socket, relative to the project
HEADER = 8  # bytes that hold the length of the message
LOST = 128 + signal.SIGKILL


def hand_over(
    connection: socket.socket,
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    streams: list[int],
) -> None:
    """Send what makes a process of this job: also its three open streams."""
    message = json.dumps([arguments, folder, environment]).encode()
    socket.send_fds(connection, [len(message).to_bytes(HEADER, "big")], streams)
    connection.sendall(message)


def ask(path: str, arguments: list[str]) -> socket.socket | None:
    """A connection to the process that runs the stage now; None: nobody is there."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
        hand_over(connection, arguments, str(Path.cwd()), dict(os.environ), [0, 1, 2])
    except OSError:
        connection.close()
        return None
    return connection


def main() -> int:
    """The exit code of the stage. Signals are passed on; the runner sees the end of this process
    by its connection."""
    path = os.environ.get(VARIABLE)
    connection = ask(path, sys.argv[1:]) if path else None
    if connection is None:
        command = [sys.executable, "-u", "-m", "workflow.run_stage", *sys.argv[1:]]
        os.execv(command[0], command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the runner too
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda signum, _: connection.send(bytes([signum])))
    code = connection.recv(1)
    return code[0] if code else LOST


if __name__ == "__main__":
    sys.exit(main())
