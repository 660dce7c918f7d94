"""Why a stage has to run, in words: `params.yaml: finetune.learning_rate 2e-5 -> 5e-5`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvc.dependency import ParamsDependency
    from dvc.stage import Stage

WORDS = {
    "modified": "changed",
    "deleted": "is missing",
    "new": "is new",
    "not in cache": "is not in the cache",
}
ABSENT = object()
MANY = 4  # names on a line


def of(stage: Stage) -> list[str]:
    """What differs from dvc.lock; empty where `Stage.changed` would be false.

    Asked of the parts of the stage one by one, since `Stage.changed` takes DVC's path locks,
    which a stage that is running holds.
    """
    from dvc.dependency import ParamsDependency

    if not stage.frozen and (stage.is_callback or stage.always_changed):
        return ["always runs"]
    if stage.cmd and not any(item.hash_info for item in [*stage.deps, *stage.outs]):
        return ["has not run yet"]
    found = ["dvc.yaml: its command changed"] if stage.changed_stage() else []
    for dep in [] if stage.frozen else stage.deps:
        if isinstance(dep, ParamsDependency):
            found += _params(dep)
        else:
            found += [f"{path} {_word(status)}" for path, status in dep.status().items()]
    for out in stage.outs:
        found += [f"{path} {_word(status)}" for path, status in out.status().items()]
    return found


def text(state: str, why: list[str], waits: list[str]) -> str:
    """The reasons on one line, for a state of `workflow.decisions`."""
    if state == "ok":
        return "up to date"
    if state == "restore":
        return "; ".join([*why, "the result is in the cache"])
    if state == "maybe":
        return "; ".join([*why, f"depends on what {_several(waits)} will make"] if waits else why)
    return "; ".join(why)


def _several(names: list[str]) -> str:
    """The names, or where they are many the first of them and how many others."""
    if len(names) <= MANY:
        return ", ".join(names)
    return f"{', '.join(names[:MANY])} and {len(names) - MANY} others"


def _word(status: Any) -> str:
    return WORDS.get(str(status), str(status))


def _params(dep: ParamsDependency) -> list[str]:
    status = dep.status()
    if not status:
        return []
    (named,) = status.values()
    if isinstance(named, str):
        return [f"{dep} {_word(named)}"]
    recorded, present = dep.hash_info.value or {}, dep.read_params()
    return [
        f"{dep}: {line}"
        for key in named
        for line in _differences(key, recorded.get(key, ABSENT), present.get(key, ABSENT))
    ]


def _differences(key: str, old: Any, new: Any) -> list[str]:
    """`key old -> new` for each leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for part in [*old, *(part for part in new if part not in old)]
            for line in _differences(f"{key}.{part}", old.get(part, ABSENT), new.get(part, ABSENT))
        ]
    if old is ABSENT:
        return [f"{key} is new"]
    if new is ABSENT:
        return [f"{key} is missing"]
    return [] if old == new else [f"{key} {old} -> {new}"]
