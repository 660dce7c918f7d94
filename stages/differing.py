"""Two dvc.lock files beside each other: which stages gave other bytes, and why.

All that compares entries of dvc.lock with one another is here; `stages/plan.py` compares them with
the files in the working tree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages import plan, runs

METRICS = "results/metrics.json"
PIN = "tool.pins."


@dataclass(frozen=True)
class Difference:
    """One stage, recorded twice."""

    stage: str
    inputs: list[str]
    """What was read differs: each in a few words."""
    outs: list[str]
    """Outputs with other bytes."""


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """The stages of both locks whose inputs or outputs are not the same, in the order of `now`."""
    for stage in [name for name in now if name in before]:
        old, new = before[stage], now[stage]
        inputs, outs = list(_inputs(old, new)), list(_other(old, new, "outs"))
        if inputs or outs:
            yield Difference(stage, inputs, outs)


def _inputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if old.get("cmd") != new.get("cmd"):
        yield "its command"
    for key, value, was in plan.changes(_params(new), _params(old)):
        library = key.removeprefix(PIN)
        yield f"{'library ' if library != key else ''}{library} {value}, was {was}"
    yield from (f"{path}, which it reads" for path in _other(old, new, "deps"))


def _params(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for part in entry.get("params", {}).values() for key, value in part.items()}


def _other(old: Mapping[str, Any], new: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Paths of the deps or outs that one entry lacks, or has with another content."""
    hashes = [{one["path"]: one.get("md5") for one in entry.get(kind, [])} for entry in (old, new)]
    for path in dict.fromkeys([*hashes[1], *hashes[0]]):
        if path not in hashes[0] or path not in hashes[1] or hashes[0][path] != hashes[1][path]:
            yield path


def computed_as(metrics: str | None) -> dict[str, Any] | None:
    """The device class that a metrics.json records."""
    try:
        return json.loads(metrics or "{}").get("device_class") or None
    except ValueError:
        return None


def in_words(device: Mapping[str, Any]) -> str:
    """A device class as `cpu, float32, 2 threads, avx512`."""
    counted = {"threads": "thread", "devices": "device"}
    words = [
        f"{value} {counted[key]}{'' if value == 1 else 's'}" if key in counted else str(value)
        for key, value in device.items()
        if value is not None
    ]
    return ", ".join(words)


def why() -> str:
    """Why the same inputs gave other bytes than in the committed dvc.lock."""
    file = Path(METRICS)
    here = computed_as(file.read_text(encoding="utf-8") if file.exists() else None)
    there = computed_as(runs.committed(METRICS))
    if here is None:
        return f"Why is unknown: {METRICS}, which names the device class, is missing."
    told = f"This machine computes as {in_words(here)}; the committed result was made"
    if there is None:
        return f"{told} elsewhere."
    if here != there:
        return f"{told} as {in_words(there)}."
    return (
        f"Both were computed as {in_words(here)}, so the kind of machine does not explain it: look "
        "for a library that is not pinned, or an output that depends on more than its inputs."
    )
