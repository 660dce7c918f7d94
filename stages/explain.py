"""Why each stage would run again, or why its bytes differ from those of the committed dvc.lock.

Run: `python -m stages explain`
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages import check, differing, params, pins, plan, runs
from stages.errors import UserError

WIDTH = 80
STATES = {"not run": "is up to date", "run": "would run", "may run": "may run"}


def main(arguments: list[str]) -> int:
    """Print a paragraph for each stage, then what this machine computes as."""
    if arguments:
        raise UserError(f"python -m stages explain: takes no argument, got {arguments[0]!r}")
    loaded = check.load()
    before, now = runs.lock(runs.committed("dvc.lock")), runs.present_lock()
    changed = {one.stage: one for one in differing.differences(before, now)}
    for step in plan.plan(params.read(Path("params.yaml"))):
        print(*_wrapped(f"{step.stage} {_state(step)}"), sep="\n")
        if step.stage in changed:
            print(*_wrapped(f"  {_bytes(changed[step.stage])}"), sep="\n")
    print("", *(line for text in _machine(loaded) for line in _wrapped(text)), sep="\n")
    return 0


def _state(step: plan.Step) -> str:
    reasons = "; ".join(step.reasons)
    return STATES[step.state] + (f": {reasons}" if reasons else "")


def _bytes(one: differing.Difference) -> str:
    if one.outs and not one.inputs:
        return f"gave other bytes than committed for the same inputs: {', '.join(one.outs)}"
    told = f"read other inputs than in the committed dvc.lock: {'; '.join(one.inputs)}"
    return told + (
        f". So {', '.join(one.outs)} differ{'s' * (len(one.outs) == 1)}" * bool(one.outs)
    )


def _machine(loaded: check.Params) -> Iterator[str]:
    """Whether this machine would give the committed bytes."""
    from stages.training.fitting import LIBRARIES
    from stages.training.machine import configure

    section = loaded.sections["finetune"]
    try:
        pins.require(LIBRARIES, loaded.run.method_name)
    except UserError as error:
        yield "Other libraries than those pinned are installed, which give other bytes:"
        yield from (f"  {problem}" for problem in error.problems)
    here: dict[str, Any] = configure(
        section.device, section.precision, section.threads
    ).device_class()
    there = differing.computed_as(runs.committed(differing.METRICS))
    yield f"This machine computes as {differing.in_words(here)}."
    if there is None:
        yield f"What committed results were computed as is unknown: git has no {differing.METRICS}."
        return
    other = list(plan.changes(here, there))
    if not other:
        yield "The committed results were computed as that too: it gives the same bytes."
        return
    yield (
        "The committed results were computed otherwise, so the last bits of weights that are "
        "trained here will differ: "
        + "; ".join(f"{key} {value}, was {was}" for key, value, was in other)
    )


def _wrapped(text: str) -> list[str]:
    indent = "    " if text.startswith(" ") else "  "
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
