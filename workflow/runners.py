"""Runners that need no start: forked from a process that has imported DVC and read the project.

Importing DVC takes longer than all that it does for a small stage. Snakemake's process has done
so for the plan; before its first job it forks one that waits for jobs on a socket and forks a
runner for each. Nothing rests on that process: where it is gone, jobs start as they do on other
nodes, and runners that it started go on.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from workflow import begin
from workflow.supervision import FOLDER

PASSED = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}
_open: list[int] = []  # closed when this process ends, however it does


def start() -> None:
    """Fork the process that waits for the jobs of this one, and ends with it."""
    from workflow import run_stage

    path = FOLDER / f"runners-{os.getpid()}"
    try:
        listener = listening(path)
    except OSError:  # a file system without sockets
        return
    ended, keeps_open = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        listener.close()
        os.close(ended)
        _open.append(keeps_open)
        os.environ[begin.VARIABLE] = str(path)
        return
    try:
        os.close(keeps_open)
        serve(listener, ended, run_stage.main)
    finally:
        path.unlink(missing_ok=True)
        os._exit(0)


def listening(path: Path) -> socket.socket:
    """A socket that only this user may connect to: whoever may, runs programs as us."""
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o077)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def serve(listener: socket.socket, ended: int, main: Callable[[list[str]], int]) -> None:
    """Fork a process for each connection, which runs `main` with what `workflow.begin` sends.

    Args:
        ended: a descriptor that can be read from when nobody will connect any more.
    """
    for signum in PASSED:
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets those that ended
    while True:
        ready, _, _ = select.select([listener.fileno(), ended], [], [])
        if ended in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            os.close(ended)
            _become(connection, main)
        connection.close()


def _become(connection: socket.socket, main: Callable[[list[str]], int]) -> None:
    """Be the process that a job would have started, and end."""
    code = 1
    try:
        arguments = _take_over(connection)
        threading.Thread(target=_obey, args=[connection], daemon=True).start()
        code = main(arguments)
    except SystemExit as error:
        code = int(error.code or 0) if isinstance(error.code, int | None) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for signum in PASSED:  # the job ends when it hears the code, and with it `_obey`
            signal.signal(signum, signal.SIG_IGN)
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        with suppress(OSError):
            connection.send(bytes([code]))
        os._exit(code)


def _take_over(connection: socket.socket) -> list[str]:
    """The job's streams, folder, environment and way with signals; returns its arguments."""
    header, descriptors, _, _ = socket.recv_fds(connection, begin.HEADER, 3)
    with connection.makefile("rb") as stream:
        message = stream.read(int.from_bytes(header, "big"))
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    arguments, folder, environment = json.loads(message)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return list(arguments)


def _obey(connection: socket.socket) -> None:
    """Signals that the job gets are ours; its end is ours too."""
    while signum := connection.recv(1):
        os.kill(os.getpid(), signum[0])
    os.kill(os.getpid(), signal.SIGTERM)
