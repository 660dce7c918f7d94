"""`dvc` and `snakemake` without the time that importing them takes.

One process for each of them imports it once, and forks for each command: the command has a process
of its own, with its folder, environment and streams, so that nothing leaks from one to the next.
Each server has its own seed of hashes, as two processes of a user would have.
"""

from __future__ import annotations

import atexit
import importlib
import os
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from workflow import begin, runners

ROOT = Path(__file__).parent.parent
OURS = ("workflow", "stages", "tests")
# What a run of either imports on its way, or these import.
OF_DVC = (
    *("dvc.data_cloud", "dvc.lock", "dvc.repo.graph", "dvc.repo.index", "dvc.repo.metrics"),
    *("dvc.repo.params", "dvc.repo.plots", "dvc.repo.reproduce", "dvc.repo.stage", "dvc.rwlock"),
    *("dvc.scm", "dvc.stage.run", "dvc.utils.strictyaml", "dvc_data.hashfile.db.local"),
    *("configobj", "dulwich.worktree", "dvc.cachemgr", "dvc.repo.artifacts", "dvc.repo.datasets"),
    *("platformdirs", "ruamel.yaml", "scmrepo.git.backend.pygit2.filter"),
    *("fsspec.implementations.memory", "networkx", "pygit2", "pyparsing", "flatten_dict"),
)
PRELOADED = {
    "dvc": (*OF_DVC, "dvc.cli.parser", "dvc.analytics", "dvc._debug", "dvc.repo.init"),
    "snakemake": (
        *OF_DVC,
        *("snakemake.cli", "snakemake.report", "snakemake.storage", "snakemake.assets"),
        *("snakemake.profiles", "snakemake.scheduling.milp", "snakemake.executors.local"),
        *("smart_open", "yte", "docutils.core", "requests", "pulp", "jinja2"),
    ),
}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of `dvc ...` or `snakemake ...`."""
    with tempfile.TemporaryFile("w+") as output:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(_server(command[0]))
        begin.hand_over(connection, command, str(folder), environment, [0, *[output.fileno()] * 2])
        code = connection.recv(1)
        output.seek(0)
        return code[0] if code else begin.LOST, output.read()


@cache
def _server(engine: str) -> str:
    """The socket of the process that has imported an engine; it ends with this one."""
    path = Path(tempfile.mkdtemp()) / "socket"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.engines", engine, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin and process.stdout
    assert process.stdout.readline(), f"{engine} cannot be imported"
    atexit.register(process.stdin.close)
    return str(path)


def _serve(engine: str, path: Path) -> None:
    for name in PRELOADED[engine]:
        importlib.import_module(name)
    listener = runners.listening(path)
    print("ready", flush=True)
    runners.serve(listener, sys.stdin.fileno(), _main)
    path.unlink()
    path.parent.rmdir()


def _main(command: list[str]) -> int:
    """As the console script does it; the project's own modules are those of its folder."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    sys.path[:] = [str(Path(sys.executable).parent), *[p for p in sys.path if p != os.fspath(ROOT)]]
    sys.argv = command
    if command[0] == "dvc":
        from dvc.cli import main
    else:
        from snakemake.cli import main
    return int(main(command[1:]) or 0)


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]))
