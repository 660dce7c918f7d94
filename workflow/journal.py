"""Notes of commands that finished, kept until DVC has recorded their results.

One JSON file a stage: what the command used, and what it left. A run that finds one recording
what is still true records the result instead of running the command again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from workflow.supervision import FOLDER, token


def inputs(stage: Any) -> dict[str, Any]:
    """Command, hashes of dependencies and values of parameters of a `dvc.stage.Stage`."""
    from dvc.stage.serialize import to_single_stage_lockfile

    entry = json.loads(json.dumps(to_single_stage_lockfile(stage)))
    return {key: entry.get(key) for key in ("cmd", "deps", "params")}


def difference(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Paths of the dependencies and names of the parameter files that differ."""
    old, new = (
        {dep["path"]: dep for dep in side["deps"] or []} | (side["params"] or {})
        for side in (before, after)
    )
    found = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return found if before["cmd"] == after["cmd"] else ["its command", *found]


def write(stage: Any, used: dict[str, Any]) -> None:
    """Note at once that the command has finished; it used `used`, as `inputs` gave it."""
    _replace(stage.addressing, {"inputs": used, "files": _files(stage)})


def add_hashes(stage: Any) -> None:
    """Hash what the command made, which may take long, and complete the note."""
    note = json.loads(_path(stage.addressing).read_bytes())
    hashes = {out.def_path: out.get_hash().value for out in stage.outs if out.exists}
    _replace(stage.addressing, note | {"hashes": hashes})


def holds(stage: Any) -> bool:
    """Whether a command that ran to its end on the present inputs left the present outputs."""
    from dvc.exceptions import DvcException

    try:
        note = json.loads(_path(stage.addressing).read_bytes())
        stage.save_deps()
    except (FileNotFoundError, ValueError, DvcException):
        return False
    if note["inputs"] != inputs(stage) or not all(out.exists for out in stage.outs):
        return False
    if "hashes" in note:  # to rely on more than sizes and times, if it came so far
        return note["hashes"] == {out.def_path: out.get_hash().value for out in stage.outs}
    return note["files"] == _files(stage)


def forget(address: str) -> None:
    _path(address).unlink(missing_ok=True)


def _path(address: str) -> Path:
    return FOLDER / f"{token(address)}.json"


def _replace(address: str, note: dict[str, Any]) -> None:
    partial = _path(address).with_suffix(".partial")
    with partial.open("w") as file:
        json.dump(note, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, _path(address))


def _files(stage: Any) -> dict[str, list[int]]:
    """Size and time of change of each file among the outputs."""
    found = {}
    for out in stage.outs:
        path = Path(out.fs_path)
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                status = file.stat()
                found[str(file)] = [status.st_size, status.st_mtime_ns]
    return found
