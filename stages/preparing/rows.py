"""Raw rows as frames: normalised, hashed, with the reasons that a row alone can give.

Columns: `file`, `line`, `split` (the given one, or ""), `reason` (why the row is rejected, or ""),
`group` (or ""), the roles that the task reads, the columns kept, `key` (hash of the texts), `draw`
(hash for the draw of a split).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.common.texts import present
from stages.preparing.normalising import normalised
from stages.preparing.reading import SPLIT_NAMES, Batch, Source, mended

if TYPE_CHECKING:
    import pandas as pd

OWN = ("id", "file", "line", "reason", "split", "group", "key", "draw")
"""Names that no other column may have."""


@dataclass(frozen=True)
class Mapping:
    """Which raw column becomes what; `task` is the task's module, `data` its section."""

    task: Any
    data: Any
    keep: Sequence[str]
    split: str | None
    group: str | None
    seed: int

    def columns(self) -> list[str]:
        """The raw columns needed, each once."""
        extra = [name for name in (self.split, self.group) if name]
        of_roles = self.task.columns(self.data).values()
        return list(dict.fromkeys([*of_roles, *self.keep, *extra]))

    def nested(self) -> set[str]:
        """Those of them whose values may be lists or objects."""
        return {
            name for role, name in self.task.columns(self.data).items() if role in self.task.NESTED
        }

    @cached_property
    def roles(self) -> list[str]:
        """What the task reads of the raw columns: columns of prepared rows."""
        return list(self.read({})[0])

    @cached_property
    def texts(self) -> list[str]:
        """Those of the roles that hold text."""
        return present(self.task.TEXTS, self.roles)

    def read(self, columns: dict[str, list[str]]) -> tuple[dict[str, list[str]], dict[int, str]]:
        """Values by role, and by index why a row cannot be used; see `Task.read`."""
        of_roles = self.task.columns(self.data)
        raw = {role: columns.get(name, []) for role, name in of_roles.items()}
        found: tuple[dict[str, list[str]], dict[int, str]]
        found = self.task.read(raw, self.data, normalised)
        return found


def frame(batch: Batch, source: Source, mapping: Mapping) -> pd.DataFrame:
    """The rows of a batch [n], in order, none left out."""
    import pandas as pd

    count = len(batch.lines)
    roles, unusable = mapping.read(batch.columns)
    unusable |= mended(roles.values())  # what only their JSON could spell
    groups = normalised(batch.columns[mapping.group]) if mapping.group else [""] * count
    splits, reasons = [source.split or ""] * count, [""] * count
    if mapping.split:
        given = [name.lower() for name in normalised(batch.columns[mapping.split])]
        splits = [SPLIT_NAMES.get(name, "") for name in given]
        for i in _empty(splits):
            reasons[i] = f"unknown split {given[i]!r}; write train, validation or test"
    for role in mapping.texts:
        for i in _empty(roles[role]):
            reasons[i] = f"no {role}"
    for i, reason in unusable.items():
        reasons[i] = reason
    for i, reason in batch.reasons.items():
        reasons[i] = reason
    contents = ["\0".join(texts) for texts in zip(*(roles[r] for r in mapping.texts), strict=True)]
    drawn_by = [group or text for group, text in zip(groups, contents, strict=True)]
    columns: dict[str, Any] = {"file": [source.name] * count, "line": batch.lines}
    columns |= {"split": splits, "reason": reasons, "group": groups, **roles}
    columns |= {name: batch.columns[name] for name in mapping.keep}
    columns["key"] = hashes(contents)
    columns["draw"] = hashes(drawn_by, f"{mapping.seed}\0")
    return pd.DataFrame(columns)


def hashes(texts: Iterable[str], prefix: str = "") -> np.ndarray:
    """BLAKE2b of each text after `prefix`, cut to 8 bytes: big-endian, as uint64 [n]."""
    blake2b, start = hashlib.blake2b, prefix.encode()
    digests = b"".join([blake2b(start + text.encode(), digest_size=8).digest() for text in texts])
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def _empty(values: list[str]) -> list[int]:
    return [i for i, value in enumerate(values) if not value]
