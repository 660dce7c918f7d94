"""What `dvc repro` would do for each stage, told before anything is done.

ok       nothing changed and nothing upstream will
restore  the cache or the run-cache has the result for the inputs that there will be
run      the command has to run
maybe    a stage upstream runs; DVC decides once its outputs are there (early cutoff)

All by content, asked of DVC's own stage objects; nothing in the project is changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workflow import reasons

if TYPE_CHECKING:
    from dvc.dependency import Dependency
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import Stage

OK, RESTORE, RUN, MAYBE = STATES = ("ok", "restore", "run", "maybe")


class UnpredictableError(Exception):
    """A dependency whose content is known only after stages upstream have been restored."""


class Source(Protocol):
    """Where results can be had that the cache lacks; it puts them there when asked."""

    def bring_entries(self, key: str) -> None:
        """Run-cache entries of inputs."""

    def bring_objects(self, result: Stage) -> None:
        """All outputs of a stage that has the hashes of a result."""


def decide(
    repo: Repo,
    order: list[Stage],
    upstream: dict[Stage, list[Stage]],
    source: Source | None = None,
) -> dict[str, tuple[str, str]]:
    """State and reason of each stage, by address; `order` has upstream stages first."""
    decided: dict[str, tuple[str, str]] = {}
    outputs: dict[str, Output] = {}  # by path, with the hashes that they will have
    for stage in order:
        before = {other.addressing: decided[other.addressing][0] for other in upstream[stage]}
        why = reasons.of(stage)
        state = _state(repo, stage, before, bool(why), outputs, decided, source)
        waits = [name for name, other in before.items() if other in {RUN, MAYBE}]
        decided[stage.addressing] = (state, reasons.text(state, why, waits))
        outputs |= {out.fs_path: out for out in stage.outs}
    return decided


def _state(
    repo: Repo,
    stage: Stage,
    before: dict[str, str],
    changed: bool,
    outputs: dict[str, Output],
    decided: dict[str, tuple[str, str]],
    source: Source | None,
) -> str:
    if stage.frozen or stage.cmd is None:
        return RUN if changed else OK
    if stage.is_callback or stage.always_changed:
        return RUN
    if set(before.values()) & {RUN, MAYBE}:
        return MAYBE
    if not changed and RESTORE not in before.values():
        return OK
    recorded = _key(_entry(stage)) if _is_recorded(stage) else None
    moving = {path for path, out in outputs.items() if decided[out.stage.addressing][0] != OK}
    try:
        entry = _predicted_entry(stage, outputs, moving)
    except UnpredictableError:
        return MAYBE
    except _dvc_exception():  # a source file or parameter is missing: its job will say so
        return RUN
    if recorded == _key(entry) and not any(out.status() for out in stage.outs):
        return OK
    result = entry if recorded == _key(entry) else _run_cache(repo, entry, source)
    return RESTORE if result and _restorable(repo, stage, result, source) else RUN


def _dvc_exception() -> type[Exception]:
    from dvc.exceptions import DvcException

    return DvcException


def _entry(stage: Stage) -> dict[str, Any]:
    """The stage as dvc.lock would have it, as plain data."""
    from dvc.stage.serialize import to_single_stage_lockfile

    return json.loads(json.dumps(to_single_stage_lockfile(stage)))


def _key(entry: dict[str, Any]) -> str:
    """What decides: the inputs by their hashes. Sizes are left out as DVC does."""
    inputs = {key: entry.get(key) for key in ("cmd", "params")}
    hashes = [
        {key: value for key, value in dep.items() if key not in {"size", "nfiles"}}
        for dep in entry.get("deps", [])
    ]
    return json.dumps(inputs | {"deps": hashes})


def _is_recorded(stage: Stage) -> bool:
    return bool(stage.outs) and all(o.hash_info for o in stage.outs) and not stage.cmd_changed


def _predicted_entry(stage: Stage, outputs: dict[str, Output], moving: set[str]) -> dict[str, Any]:
    """The lock entry with the present parameters and sources, and the outputs of stages
    upstream as they will be. Only objects in memory change."""
    from dvc.dependency import ParamsDependency

    for dep in stage.deps:
        out = None if isinstance(dep, ParamsDependency) else outputs.get(dep.fs_path)
        if out is not None:
            dep.hash_name, dep.hash_info, dep.meta = out.hash_name, out.hash_info, out.meta
        elif around := [path for path in moving if dep.fs.overlaps(dep.fs_path, path)]:
            _predict_part(dep, outputs[around[0]])
        else:
            dep.save()
    return _entry(stage)


def _predict_part(dep: Dependency, folder: Output) -> None:
    """Give a dependency the hash that a file in a folder will have.

    Raises:
        UnpredictableError: it is a folder itself, or the cache does not know the folder.
    """
    from dvc_data.hashfile.meta import Meta
    from dvc_data.hashfile.tree import Tree

    try:
        tree = Tree.load(folder.cache, folder.hash_info, hash_name=folder.hash_name)
    except FileNotFoundError:
        raise UnpredictableError from None
    inside = dep.fs.isin(dep.fs_path, folder.fs_path)
    found = tree.get(dep.fs.relparts(dep.fs_path, folder.fs_path)) if inside else None
    if found is None:
        raise UnpredictableError
    dep.hash_name, dep.hash_info, dep.meta = folder.hash_name, found[1], Meta()


def _run_cache(repo: Repo, entry: dict[str, Any], source: Source | None) -> dict[str, Any] | None:
    """The newest result that the run-cache has for these inputs."""
    from dvc.stage.cache import _get_cache_hash

    key = _get_cache_hash(json.loads(json.dumps(entry)), key=True)
    if source:
        source.bring_entries(key)
    folder = Path(repo.stage_cache._get_cache_dir(key))
    if not folder.is_dir():
        return None
    newest = max(folder.iterdir(), key=lambda file: file.stat().st_mtime, default=None)
    return repo.stage_cache._load_cache(key, newest.name) if newest else None


def _restorable(repo: Repo, stage: Stage, result: dict[str, Any], source: Source | None) -> bool:
    """Whether DVC would restore a result; if so, downstream stages will see its hashes."""
    local = all(dep.protocol == "local" and dep.def_path for dep in stage.deps)
    kept = all(
        out.protocol == "local" and out.def_path and not out.persist and out.is_in_repo
        for out in stage.outs
    )
    if not (stage.deps and stage.outs and local and kept):
        return False
    cached = repo.stage_cache._create_stage(json.loads(json.dumps(result)), wdir=stage.wdir)
    if source:
        source.bring_objects(cached)
    if not cached.outs_cached():
        return False
    by_path = {out.def_path: out for out in cached.outs}
    for out in stage.outs:
        other = by_path[out.def_path]
        out.hash_name, out.hash_info, out.meta = other.hash_name, other.hash_info, other.meta
    return True
