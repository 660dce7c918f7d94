"""The results of one state of the project: the working tree, or any git revision.

What git keeps of a revision (metrics, dvc.lock) is read from git, what DVC keeps (predictions)
from DVC's cache, or else from its remote. Nothing is checked out.
"""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import runs
from stages.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

NOW = "now"
METRICS = "results/metrics.json"
DATA = "results/data.json"
PREDICTIONS = "results/predictions.parquet"


@dataclass(frozen=True)
class Results:
    """`read` gives a file's bytes; it raises FileNotFoundError where the state has none."""

    name: str
    about: str
    lock: dict[str, Any]
    read: Callable[[str], bytes]

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Content of results/metrics.json."""
        return self._json(METRICS)

    @cached_property
    def data(self) -> dict[str, Any]:
        """Content of results/data.json."""
        return self._json(DATA)

    @cached_property
    def labels(self) -> list[str]:
        """In the order of the scores' columns; none for a task without labels."""
        return list(self.data.get("splits", {}).get("train", {}).get("labels", {}))

    @property
    def task(self) -> str | None:
        """Name of the task that was evaluated."""
        found = self.params.get("run.task")
        return found if isinstance(found, str) else None

    @cached_property
    def params(self) -> dict[str, Any]:
        """Every parameter that a stage read, by dotted key."""
        return {
            key: value
            for entry in self.lock.values()
            for values in entry.get("params", {}).values()
            for key, value in values.items()
        }

    @cached_property
    def deps(self) -> dict[str, str]:
        """MD5 of all that the stages read and made, by path."""
        return {
            item["path"]: item.get("md5", "")
            for entry in self.lock.values()
            for item in (*entry.get("deps", []), *entry.get("outs", []))
        }

    def predictions(self) -> pd.DataFrame:
        """results/predictions.parquet.

        Raises:
            UserError: it can be had nowhere.
        """
        import pandas as pd

        try:
            return pd.read_parquet(io.BytesIO(self.read(PREDICTIONS)))
        except FileNotFoundError:
            if self.name == NOW:
                raise UserError(f"{PREDICTIONS}: missing; run `dvc repro` or `dvc pull`") from None
            raise UserError(
                f"{self.name}: {PREDICTIONS} is neither in DVC's cache nor in its remote; `dvc "
                f"push` it where it was made, or `git checkout {self.name}` and `dvc repro`"
            ) from None

    def _json(self, path: str) -> dict[str, Any]:
        try:
            found = json.loads(self.read(path))
        except FileNotFoundError:
            raise UserError(
                f"{self.name}: no results there, {path} is missing; "
                + ("run `dvc repro`" if self.name == NOW else "name a revision that has them")
            ) from None
        except ValueError as error:
            raise UserError(f"{self.name}: {path}: not JSON ({error})") from None
        if not isinstance(found, dict):
            raise UserError(f"{self.name}: {path}: holds no object")
        return found


def present() -> Results:
    """Of the working tree."""
    about = "the working tree"
    head = git("rev-parse", "--short", "HEAD")
    if head:
        changed = git("status", "--porcelain", "--untracked-files=no")
        about += f" at {head.strip()}" + (", with changes" if changed else "")
    return Results(NOW, about, runs.present_lock(), lambda path: Path(path).read_bytes())


def at(revision: str) -> Results:
    """Of a commit, branch or tag.

    Raises:
        UserError: there is no such revision, or it has no dvc.lock.
    """
    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if not commit:
        if git("rev-parse", "--git-dir") is None:
            raise UserError("no git repository here; run from the project's root folder")
        names = git("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags") or ""
        raise UserError(
            f"{revision}: not a revision of this repository; "
            f"{did_you_mean(revision, names.split())}"
        )
    commit = commit.strip()
    content = git("show", f"{commit}:./dvc.lock")
    if content is None:
        raise UserError(f"{revision}: no results there, dvc.lock is missing; name another revision")
    subject = (git("log", "-1", "--format=%h %s", commit) or "").strip()
    return Results(revision, subject, runs.lock(content), _reader(commit))


def _reader(commit: str) -> Callable[[str], bytes]:
    from dvc.api import DVCFileSystem

    opened: list[Any] = []

    def read(path: str) -> bytes:
        if (tracked := _git_bytes("show", f"{commit}:./{path}")) is not None:
            return tracked
        if not opened:  # takes a second
            opened.append(DVCFileSystem(rev=commit))
        try:
            content: bytes = opened[0].read_bytes(path)
        except Exception as error:  # of DVC's many ways to say that there is no such file
            raise FileNotFoundError(path) from error
        return content

    return read


def git(*command: str) -> str | None:
    """Output of git, or None where it fails."""
    found = _git_bytes(*command)
    return None if found is None else found.decode("utf-8", "replace")


def _git_bytes(*command: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *command], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout
