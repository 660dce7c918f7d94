"""The field's rules of thumb, each judged by what was measured: held, did not hold, not shown.

A rule is a statement on differences of which each has an interval. It held where every one of them
is shown to be as it says, did not hold where one is shown to be otherwise, and is not shown where
intervals leave it open. The better of a group of methods is chosen by the same runs that are then
compared, which favours neither side when both are chosen so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stages.reporting.text import count
from stages.studying.comparing import Difference, best, difference, onset
from stages.studying.outcomes import Study

Verdict = Literal["held", "did not hold", "not shown"]

FEW = ("few_shot", "prompt")
TUNED = ("adapter", "bitfit", "freeze", "full", "ia3", "lora", "prefix")
SCRATCH = "from_scratch"
FEW_BELOW, TUNED_FROM, MANY, FAR_LESS = 50, 100, 10_000, 4


@dataclass(frozen=True)
class Judgement:
    rule: str
    verdict: Verdict
    evidence: list[str]


@dataclass(frozen=True)
class Crossing:
    """The size from which on a method is ahead, or near enough: by its means, and by intervals."""

    name: str
    by_means: int | None
    shown: int | None


def judge(study: Study, tolerance: float) -> list[Judgement]:
    """All rules.

    Args:
        tolerance: how much less of the main metric is still within reach.
    """
    pretrained = [name for name in study.curves if name in (*TUNED, *FEW, "head_only")]
    few_sizes = [rows for rows in study.sizes if rows < FEW_BELOW]
    tuned_sizes = [rows for rows in study.sizes if rows >= TUNED_FROM]
    fewer_than_many = [rows for rows in study.sizes if rows < MANY]
    return [
        _ahead(
            f"few-shot or prompt tuning is best under {FEW_BELOW} rows",
            against(study, FEW, [name for name in study.curves if name not in FEW], few_sizes),
            f"no such method, nothing to compare it with, or no size under {FEW_BELOW}",
        ),
        _ahead(
            f"fine-tuning is best from {TUNED_FROM} rows on",
            against(
                study, TUNED, [name for name in study.curves if name not in TUNED], tuned_sizes
            ),
            f"no fine-tuning, nothing to compare it with, or no size from {TUNED_FROM} on",
        ),
        _scratch(study, against(study, pretrained, [SCRATCH], fewer_than_many), tolerance),
        _far_less(study),
    ]


def against(
    study: Study, first: Sequence[str], second: Sequence[str], sizes: Sequence[int]
) -> list[Difference]:
    """The best of one group minus the best of another, at each size that both have."""
    found = []
    for rows in sizes:
        one, two = best(study, first, rows), best(study, second, rows)
        if one and two:
            found.append(difference(study, one, two, rows))
    return found


def verdict(differences: Sequence[Difference], bound: float = 0.0) -> Verdict:
    """Is each shown to be above the bound?"""
    if any(one.mean.below(bound) for one in differences):
        return "did not hold"
    if differences and all(one.mean.above(bound) for one in differences):
        return "held"
    return "not shown"


def _ahead(rule: str, differences: Sequence[Difference], otherwise: str) -> Judgement:
    return Judgement(rule, verdict(differences), [str(one) for one in differences] or [otherwise])


def _scratch(study: Study, differences: Sequence[Difference], tolerance: float) -> Judgement:
    evidence = [str(one) for one in differences] or [f"no {SCRATCH}, or nothing pre-trained"]
    if not [rows for rows in study.sizes if rows >= MANY]:
        evidence.append(f"whether it is with {count(MANY)} rows or more was not measured")
    rule = (
        f"from scratch is not within {tolerance:g} of the best pre-trained method under "
        f"{count(MANY)} rows"
    )
    return Judgement(rule, verdict(differences, tolerance), evidence)


def _far_less(study: Study) -> Judgement:
    """By the largest size of training from scratch, and the largest that is a quarter of it."""
    rule = (
        f"fine-tuning does better with a quarter of the rows ({FAR_LESS} times fewer) than "
        "training from scratch with all"
    )
    scratch = study.curves.get(SCRATCH)
    most = max(scratch.values, default=0) if scratch else 0
    few = max((rows for rows in study.sizes if rows * FAR_LESS <= most), default=0)
    tuned = best(study, TUNED, few)
    if not tuned:
        return Judgement(rule, "not shown", ["no two sizes so far apart have both methods"])
    found = difference(study, tuned, SCRATCH, few, most)
    return Judgement(rule, verdict([found]), [str(found)])


def crossings(study: Study, tolerance: float) -> list[Crossing]:
    """Where fine-tuning overtakes few-shot, and where from scratch comes within reach of it: by
    the sizes at which both were measured, and not at all where there is none."""
    few = against(study, TUNED, ["few_shot"], study.sizes)
    reach = against(study, TUNED, [SCRATCH], study.sizes)
    found = [
        _crossing(
            "fine-tuning overtakes few-shot",
            few,
            [one.mean.value > 0 for one in few],
            [one.mean.above(0) for one in few],
        ),
        _crossing(
            f"from scratch comes within {tolerance:g} of fine-tuning",
            reach,
            [one.mean.value <= tolerance for one in reach],
            [one.mean.below(tolerance) for one in reach],
        ),
    ]
    return [one for one in found if one is not None]


def _crossing(
    name: str, differences: Sequence[Difference], by_means: list[bool], shown: list[bool]
) -> Crossing | None:
    if not differences:
        return None
    sizes = [one.rows for one in differences]
    by_size = (dict(zip(sizes, holds, strict=True)) for holds in (by_means, shown))
    return Crossing(name, *(onset(sizes, holds) for holds in by_size))
