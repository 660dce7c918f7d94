"""dvc.lock as a file: whether it is whole, and what of it is.

DVC empties dvc.lock and writes it anew, so that a kill in between leaves its first part or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?")
ENTRY = re.compile(r"^  \S", re.MULTILINE)
CONFLICT = re.compile(r"^(<{7}|={7}|>{7})", re.MULTILINE)
EMPTY = "schema: '2.0'\n"


def torn(text: str) -> bool:
    """Whether a kill has cut the file short. One with git's marks of a conflict is not torn."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if CONFLICT.search(text):
        return False
    try:
        content = YAML(typ="safe").load(text)
    except YAMLError:
        return True
    if not isinstance(content, dict) or content.get("schema") != "2.0":
        return True
    stages = content.get("stages", {})
    return not (isinstance(stages, dict) and all(map(_is_whole, stages.values())))


def conflict(path: str | Path) -> str:
    """What to do about git's marks in a file."""
    return (
        f"{path}: has git's marks of a merge conflict; take one side, `git checkout --ours {path}` "
        "or --theirs, `git add` it, and run again: the cache has the results of both"
    )


def mended(text: str) -> str:
    """The entries before the one that is cut."""
    while torn(text):
        starts = [match.start() for match in ENTRY.finditer(text)]
        text = text[: starts[-1]] if len(starts) > 1 else EMPTY
    return text


def _is_whole(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("cmd"), str | list):
        return False
    params = entry.get("params", {})
    return (
        isinstance(params, dict)
        and all(isinstance(values, dict) for values in params.values())
        and all(isinstance(entry.get(key, []), list) for key in ("deps", "outs"))
        and all(map(_has_hash, [*entry.get("deps", []), *entry.get("outs", [])]))
    )


def _has_hash(item: Any) -> bool:
    if not isinstance(item, Mapping) or "path" not in item or None in item.values():
        return False
    if "hash" not in item:  # of other kinds of storage
        return len(item) > 1
    return item["hash"] == "md5" and bool(DIGEST.fullmatch(str(item.get("md5", ""))))
