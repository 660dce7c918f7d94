"""Outcomes of a study's trials as curves: by method and number of rows, the values of each draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.artifacts import read_json
from stages.errors import UserError

BASELINE = "baseline"


@dataclass
class Curve:
    """A method. `values` are those of the main metric on the test split, by rows and draw;
    `trained` the trained parameters of `total`, and `examples` the rows times epochs that training
    took, by rows; None of a baseline."""

    name: str
    values: dict[int, dict[int, float]] = field(default_factory=dict)
    trained: int | None = None
    total: int | None = None
    examples: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """What a study measured.

    `curves` are by method, in the order given, the baseline first. `left_out` are the sizes that
    the training split has too few rows for, `refused` the methods that cannot do the task or take
    the base, with the reason, `incomparable` the names of what was not measured by the metric, and
    `diverged` the methods and sizes of which a draw diverged.
    """

    metric: str
    sizes: list[int]
    left_out: list[int]
    test_rows: int
    curves: dict[str, Curve]
    refused: dict[str, str] = field(default_factory=dict)
    incomparable: list[str] = field(default_factory=list)
    diverged: list[tuple[str, int]] = field(default_factory=list)


def read(folder: Path, methods: Sequence[str], sizes: Sequence[int], draws: Sequence[int]) -> Study:
    """The trials of a matrix; outcomes of values that are no longer in it may lie beside them.

    Raises:
        UserError: one is missing, or is something else.
    """
    files = {
        (method, rows, draw): folder / f"{method}-{rows}-{draw}.json"
        for method in (BASELINE, *methods)
        for rows in sizes
        for draw in draws
    }
    found: dict[tuple[str, int, int], Mapping[str, Any]] = {}
    problems = []
    for key, file in files.items():
        if not file.exists():
            problems.append(f"{file}: missing; `dvc repro` on the study's dvc.yaml makes it")
            continue
        outcome = read_json(file)
        if not (isinstance(outcome, dict) and {"lacking", "refused", "test"} & set(outcome)):
            problems.append(f"{file}: not the outcome of a trial; move it elsewhere")
            continue
        found[key] = outcome
    if problems:
        raise UserError(*problems)
    return gathered(found)


def gathered(found: Mapping[tuple[str, int, int], Mapping[str, Any]]) -> Study:
    """Outcomes by method, rows and draw as a study.

    Raises:
        UserError: the training split has too few rows for every size, no method can do the task,
            or all of them diverge.
    """
    refused = {key[0]: one["refused"] for key, one in found.items() if "refused" in one}
    measured = {key: outcome for key, outcome in found.items() if "test" in outcome}
    trials = [outcome for key, outcome in measured.items() if key[0] != BASELINE]
    if not trials and refused and measured:
        raise UserError(*(f"study.method: {name}: {why}" for name, why in refused.items()))
    if not measured:
        raise UserError("no size of the study is as small as the training split; add one")
    first = (trials or [*measured.values()])[0]
    metric = first["main_metric"]
    # Of a method with so many rows, all draws or none: the mean of those that went well flatters.
    failed = {key[:2] for key, outcome in measured.items() if outcome.get("diverged")}
    measured = {key: outcome for key, outcome in measured.items() if key[:2] not in failed}
    if not measured:
        raise UserError("study: training diverged in every trial; lower the learning rates")
    others = [key for key, outcome in measured.items() if metric not in outcome["test"]]
    incomparable = {key[0]: measured.pop(key).get("baseline", key[0]) for key in others}
    curves: dict[str, Curve] = {}
    for (method, rows, draw), outcome in measured.items():
        curve = curves.setdefault(method, Curve(outcome.get("baseline", method)))
        curve.values.setdefault(rows, {})[draw] = outcome["test"][metric]
        curve.trained = outcome.get("trained_parameters")
        curve.total = outcome.get("parameters_total")
        if "examples" in outcome:
            curve.examples[rows] = outcome["examples"] if outcome["steps"] else 0
    sizes = _distinct(rows for _, rows, _ in measured)
    lacking = [rows for (_, rows, _), outcome in found.items() if "lacking" in outcome]
    left_out = [rows for rows in _distinct(lacking) if rows not in sizes]
    return Study(
        metric,
        sizes,
        left_out,
        first["rows"]["test"],
        curves,
        refused,
        [*incomparable.values()],
        sorted(failed),
    )


def _distinct(values: Iterable[int]) -> list[int]:
    return sorted(set(values))
