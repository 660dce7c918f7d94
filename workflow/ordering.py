"""The order of new lines in dvc.lock and .gitignore: that of `dvc repro`, whoever ends first.

DVC appends an entry when its stage ends. What was there before a run keeps its place; what the
run adds is put in the order of the plan. A run that failed or was killed and its successor count
as one, as they would be for `dvc repro`, which stops at the first failure.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow.leftovers import replacing

if TYPE_CHECKING:
    from dvc.stage import Stage


@dataclass(frozen=True)
class Ordering:
    """By file, relative to the root: what was `old` before the run, and all in `wanted` order."""

    old: dict[str, list[str]] = field(default_factory=dict)
    wanted: dict[str, list[str]] = field(default_factory=dict)

    def late(self, file: str, names: list[str]) -> list[str]:
        """The new ones among `names`, in the order in which they should stand at the end."""
        rank = {name: number for number, name in enumerate(self.wanted.get(file, []))}
        kept = set(self.old.get(file, []))
        return sorted((n for n in names if n in rank and n not in kept), key=rank.__getitem__)

    def continues(self, earlier: dict[str, list[str]]) -> Ordering:
        """As the second half of a run that was killed: what that one found is what is old.

        Only for files that still begin as it found them.
        """
        old = {
            file: earlier[file]
            if file in earlier and names[: len(earlier[file])] == earlier[file]
            else names
            for file, names in self.old.items()
        }
        return Ordering(old, self.wanted)

    def sort_files(self) -> None:
        """Put the new lines of each .gitignore, and the new entries of each dvc.lock, in order.

        Runners keep dvc.lock in order (hardening.keep_lock_whole), but a `dvc repro` that goes on
        where a killed run stopped does not.
        """
        for path in filter(Path.exists, map(Path, self.wanted)):
            if path.name == ".gitignore":
                self._sort_lines(path)
            else:
                self._sort_entries(path)

    def place(self, file: str, entries: dict[str, Any]) -> bool:
        """Put the new ones of these entries of a dvc.lock in order; whether that moved any."""
        before = list(entries)
        for name in self.late(file, before):
            entries[name] = entries.pop(name)
        return list(entries) != before

    def _sort_lines(self, path: Path) -> None:
        lines = path.read_text("utf-8").splitlines()
        late = self.late(str(path), lines)
        wanted = [line for line in lines if line not in set(late)] + late
        if wanted != lines:
            with replacing(path) as partial:
                partial.write_text("".join(f"{line}\n" for line in wanted), "utf-8")

    def _sort_entries(self, path: Path) -> None:
        if set(self.wanted[str(path)]) <= set(self.old[str(path)]):
            return
        from dvc.utils.serialize import dump_yaml
        from dvc.utils.serialize._yaml import parse_yaml_for_update

        content = parse_yaml_for_update(path.read_text("utf-8"), str(path))
        if self.place(str(path), content.get("stages") or {}):
            with replacing(path) as partial:
                dump_yaml(str(partial), content)


def read(order: list[Stage]) -> Ordering:
    """The files as they are, and the order of `dvc repro`, from DVC's stages in that order."""
    from scmrepo.git import GitWildMatchPattern  # as DVC escapes the lines that it writes

    wanted: dict[str, list[str]] = {}
    old: dict[str, list[str]] = {}
    for stage in order:
        if name := getattr(stage, "name", None):
            lock = os.path.relpath(Path(stage.path).with_suffix(".lock"))
            wanted.setdefault(lock, []).append(name)
            if lock not in old:
                old[lock] = list(_content(stage).get("stages") or {})
        for out in stage.outs:
            if out.use_scm_ignore:
                path = Path(out.fs_path)
                ignore = os.path.relpath(path.parent / ".gitignore")
                line = GitWildMatchPattern.escape(f"/{path.name}")
                wanted.setdefault(ignore, []).append(line)
                old.setdefault(ignore, _lines(Path(ignore)))
    return Ordering(old, wanted)


def _content(stage: Any) -> dict[str, Any]:
    return stage.dvcfile._lockfile.load()


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []
