"""A tiny project of shell commands in two copies, one for each engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import engines
from tests.project import environment

ROOT = Path(__file__).parent.parent
UNSEEN = {".git", ".snakemake", "workflow", "profiles", "Snakefile", "stages", "__pycache__"}
ENGINES = {"dvc": ["dvc", "repro", "--keep-going"], "snakemake": ["snakemake", "--cores", "4"]}


FRESH = "BRIDGE_FRESH"  # set: engines start as a user starts them, which takes a second each


@dataclass
class Outcome:
    """What a run did: the commands that it started, sorted, its exit code and its output."""

    ran: list[str]
    code: int
    output: str


class Copy:
    """One copy of a project. Its commands note their names in the file $RUNLOG."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")

    def environment(self) -> dict[str, str]:
        # Caches of hashes would outlive the temporary folder in their usual place.
        state = self.folder.with_suffix(".state")
        return environment() | {
            "RUNLOG": str(self.log),
            "SHELL": "/bin/sh",
            "DVC_SITE_CACHE_DIR": str(state),
        }

    def __call__(self, *command: str, check: bool = True) -> str:
        code, output = self._command(list(command))
        assert not check or code == 0, f"{command}: {output}"
        return output

    def _command(self, command: list[str]) -> tuple[int, str]:
        """Exit code and output."""
        if command[0] in ENGINES and not os.environ.get(FRESH):
            return engines.run(command, self.folder, self.environment())
        done = subprocess.run(
            command,
            check=False,
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def shell(self, script: str) -> None:
        self("sh", "-ec", script)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A command in the background, with its output in a file beside the folder."""
        with self.folder.with_suffix(".out").open("a") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def run(self, engine: str, *arguments: str) -> Outcome:
        self.log.write_text("")
        code, output = self._command([*ENGINES[engine], *arguments])
        return Outcome(sorted(self.log.read_text().split()), code, output)

    def tree(self) -> dict[str, bytes]:
        """Every file that a user sees, dvc.lock and .gitignore files included."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
            and not UNSEEN & set(path.relative_to(self.folder).parts)
            and not path.is_relative_to(self.folder / ".dvc/cache")
            and not path.is_relative_to(self.folder / ".dvc/tmp")
        }


def create(folder: Path, files: dict[str, str]) -> Copy:
    """A git and DVC repository with these files and the workflow of this project."""
    folder.mkdir(parents=True)
    copy = Copy(folder)
    ignored = shutil.ignore_patterns("__pycache__", "dvc.yaml", "dvc.lock")
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=ignored)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "profiles").symlink_to("workflow/profiles")  # where Snakemake looks for them
    (folder / "stages").mkdir()
    for name in ("__init__.py", "alone.py", "errors.py", "locks.py"):
        shutil.copy(ROOT / "stages" / name, folder / "stages" / name)
    shutil.copy(ROOT / ".dvcignore", folder)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / ".gitignore").write_text(".snakemake/\n__pycache__/\n*.partial\n")
    copy("git", "init", "-q", "-b", "main")
    copy("dvc", "init", "-q")
    copy("git", "add", "-A")
    copy("git", "commit", "-q", "-m", "a tiny project")
    return copy


def duplicate(copy: Copy, folder: Path) -> Copy:
    shutil.copytree(copy.folder, folder, symlinks=True)
    return Copy(folder)


def differences(one: Copy, other: Copy) -> list[str]:
    """The files of two copies that differ, with what is in them."""
    left, right = one.tree(), other.tree()
    return [
        f"{name}:\n{left.get(name)!r}\n{right.get(name)!r}"
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    ]


class Pair:
    """Two copies that get the same edits; `dvc repro` runs one, `snakemake` the other."""

    def __init__(self, base: Copy, folder: Path) -> None:
        self.copies = {engine: duplicate(base, folder / engine) for engine in ENGINES}

    def shell(self, script: str) -> None:
        for copy in self.copies.values():
            copy.shell(script)

    def each(self, action: Callable[[Copy], None]) -> None:
        for copy in self.copies.values():
            action(copy)

    def run(self, *, everything: bool = False) -> tuple[Outcome, Outcome, list[str]]:
        """Run both at the same time; what differs afterwards, in words."""
        extra: dict[str, list[str]] = {"dvc": [], "snakemake": []}
        if everything:
            extra = {"dvc": ["--all-pipelines"], "snakemake": ["--config", "all_pipelines=1"]}

        def one(engine: str) -> Outcome:
            return self.copies[engine].run(engine, *extra[engine])

        with ThreadPoolExecutor(2) as pool:
            dvc, snakemake = pool.map(one, ENGINES)
        return dvc, snakemake, self._differences(dvc, snakemake)

    def _differences(self, dvc: Outcome, snakemake: Outcome) -> list[str]:
        found = []
        if dvc.ran != snakemake.ran:
            found.append(f"ran {dvc.ran} and {snakemake.ran}")
        if (dvc.code == 0) != (snakemake.code == 0):
            found.append(f"exit codes {dvc.code} and {snakemake.code}")
        return found + differences(*self.copies.values())


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def has_ended(process: int, seconds: float = 20) -> bool:
    """Wait for a process that is no child of ours."""
    import time

    end = time.monotonic() + seconds
    while is_alive(process) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_alive(process)
