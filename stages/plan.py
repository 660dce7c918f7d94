"""What `dvc repro` would run, and why: dvc.yaml and the working tree against dvc.lock.

A stage runs when what it reads, a parameter or an output of it is another than dvc.lock recorded.
What is below such a stage *may* run: it does if the stage gives other bytes than before. DVC
restores instead of running what its cache holds; that is not looked at here.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from stages import runs

State = Literal["not run", "run", "may run"]
MISSING = "is missing"
SHOWN = 40  # characters of a value
LARGE = 2 << 30  # bytes; what is larger is compared by size alone, for reading it takes too long


@dataclass(frozen=True)
class Step:
    """One stage, what becomes of it, and each reason in a few words."""

    stage: str
    state: State
    reasons: list[str]


def plan(params: Mapping[str, Any]) -> list[Step]:
    """A step for each stage of dvc.yaml, in its order; those that a loop makes are left out.

    Args:
        params: content of params.yaml.
    """
    return list(_Plan(params).steps())


class _Plan:
    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params
        self.lock = runs.present_lock()
        self.project = tomllib.loads(_text("pyproject.toml") or "")
        self.known: dict[str, Step] = {}
        self.hashes = Hashes()

    @cached_property
    def stages(self) -> dict[str, Any]:
        """Of dvc.yaml, with the values of its templates."""
        written = runs.read_yaml("dvc.yaml")["stages"]
        return {name: self._resolved(written[name]) for name in runs.pipeline()}

    @cached_property
    def made(self) -> dict[str, str]:
        """Output to the stage that makes it."""
        return {out: stage for stage, content in self.stages.items() for out in _outs(content)}

    def steps(self) -> Iterator[Step]:
        for stage in self.stages:
            yield self._step(stage)

    def _step(self, stage: str) -> Step:
        if stage not in self.known:
            reasons = list(self._own_reasons(stage))
            above = [
                name
                for name in dict.fromkeys(map(self._maker, self.stages[stage].get("deps", [])))
                if name and self._step(name).state != "not run"
            ]
            state: State = "run" if reasons else "may run" if above else "not run"
            below = [f"below {', '.join(above)}"] if above else []
            self.known[stage] = Step(stage, state, reasons or below)
        return self.known[stage]

    def _maker(self, path: str) -> str | None:
        """The stage that makes a file, or the folder that it is in."""
        places = [path, *(str(parent) for parent in Path(path).parents)]
        return next((self.made[place] for place in places if place in self.made), None)

    def _own_reasons(self, stage: str) -> Iterator[str]:
        entry, content = self.lock.get(stage), self.stages[stage]
        if entry is None:
            yield "has not run yet"
            return
        if entry.get("cmd") != content["cmd"]:
            yield "its command changed"
        recorded = {dep["path"]: dep for dep in entry.get("deps", [])}
        deps = content.get("deps", [])
        for path in [*deps, *(path for path in recorded if path not in deps)]:
            if path not in recorded or path not in deps:
                yield f"{path} is {'read now' if path in deps else 'no longer read'}"
                continue
            change = self.hashes.change(recorded[path])
            # A missing output of another stage comes back before this one is looked at.
            if change and not (change == MISSING and self._maker(path)):
                yield f"{path} {change}"
        yield from self._changed_params(content.get("params", []), entry.get("params", {}))
        for out in entry.get("outs", []):
            if change := self.hashes.change(out):
                yield f"{out['path']} {change}"

    def _changed_params(self, declared: list[Any], recorded: Mapping[str, Any]) -> Iterator[str]:
        now: dict[str, Any] = {}
        for entry in declared:
            files = entry.items() if isinstance(entry, dict) else [("params.yaml", [entry])]
            for file, keys in files:
                content = self.params if file == "params.yaml" else self.project
                now |= {key: _lookup(content, key) for key in keys}
        before = {key: value for part in recorded.values() for key, value in part.items()}
        yield from (f"{key} {value}, was {was}" for key, value, was in changes(now, before))

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(
                r"\$\{([^}]+)\}", lambda found: str(_lookup(self.params, found[1])), value
            )
        if isinstance(value, list):
            return [self._resolved(item) for item in value]
        if isinstance(value, dict):
            return {self._resolved(key): self._resolved(item) for key, item in value.items()}
        return value


class Hashes:
    """MD5 of files and folders as DVC computes them, each read once."""

    def __init__(self) -> None:
        lines = (_text(".dvcignore") or "").splitlines()
        self.ignored = [line.strip() for line in lines if line.strip() and line[0] != "#"]
        self.known: dict[str, str] = {}

    def change(self, recorded: Mapping[str, Any]) -> str | None:
        """How a file or folder differs from its entry in dvc.lock, or None."""
        path = Path(recorded["path"])
        if not path.exists():
            return MISSING
        files = self._files(path)
        size = sum(file.stat().st_size for file in files)
        if size != recorded.get("size", size) or len(files) != recorded.get("nfiles", len(files)):
            return "changed"
        if size > LARGE or recorded.get("hash") != "md5":
            return None
        return None if self._md5(path, files) == recorded.get("md5") else "changed"

    def _files(self, path: Path) -> list[Path]:
        if path.is_file():
            return [path]
        found = [file for file in path.rglob("*") if file.is_file()]
        return [file for file in found if not self._is_ignored(file.relative_to(path))]

    def _is_ignored(self, path: Path) -> bool:
        """By the patterns of .dvcignore that name files or folders wherever they are."""
        return any(fnmatch(part, pattern) for part in path.parts for pattern in self.ignored)

    def _md5(self, path: Path, files: list[Path]) -> str:
        if (key := str(path)) not in self.known:
            if path.is_file():
                with open(path, "rb") as handle:
                    self.known[key] = hashlib.file_digest(handle, _md5).hexdigest()
            else:
                listed = [
                    {"md5": self._md5(file, []), "relpath": file.relative_to(path).as_posix()}
                    for file in files
                ]
                listed.sort(key=lambda entry: entry["relpath"])
                text = json.dumps(listed, sort_keys=True)
                self.known[key] = _md5(text.encode()).hexdigest() + ".dir"
        return self.known[key]


def _md5(content: bytes = b"") -> Any:
    return hashlib.md5(content, usedforsecurity=False)


def _outs(content: Mapping[str, Any]) -> Iterator[str]:
    for kind in ("outs", "metrics", "plots"):
        for out in content.get(kind, []):
            yield from out if isinstance(out, dict) else [out]


def _lookup(content: Any, key: str) -> Any:
    """The value of a dotted key, or None."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def changes(now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The parameters that differ: dotted key, value and former value in few words."""
    new, old = dict(flat(now)), dict(flat(before))
    for key in dict.fromkeys([*new, *old]):
        if old.get(key, ...) != new.get(key, ...):
            yield key, shown(new, key), shown(old, key)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested parameters by dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def shown(values: Mapping[str, Any], key: str) -> str:
    """A value in few words; `absent` where there is none."""
    if key not in values:
        return "absent"
    text = "null" if values[key] is None else str(values[key])
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _text(path: str) -> str | None:
    file = Path(path)
    return file.read_text(encoding="utf-8") if file.exists() else None
