"""Means over draws with their intervals, and differences on the same draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.reporting.text import signed
from stages.statistics import CONFIDENCE
from stages.studying.outcomes import Curve, Study

SAME = 1e-12  # values that differ by less are equal but for rounding


@dataclass(frozen=True)
class Mean:
    """The mean of some runs with its standard error, and the 95% interval by Student's t ("The
    probable error of a mean", 1908). Of one run there is neither. Runs that are all equal have an
    error of 0, which shows nothing: few runs on few test rows often are."""

    value: float
    error: float | None
    low: float | None
    high: float | None
    runs: int

    def above(self, bound: float) -> bool:
        """Is it shown to be higher?"""
        return bool(self.error) and self.low is not None and self.low > bound

    def below(self, bound: float) -> bool:
        """Is it shown to be lower?"""
        return bool(self.error) and self.high is not None and self.high < bound


@dataclass(frozen=True)
class Difference:
    """Two methods on the same draws: first minus second, of so many rows each."""

    first: str
    second: str
    rows: int
    second_rows: int
    mean: Mean

    def __str__(self) -> str:
        rows = f"{self.rows:,} rows: " if self.rows == self.second_rows else ""
        of = [
            name if rows else f"{name} with {count:,} rows"
            for name, count in ((self.first, self.rows), (self.second, self.second_rows))
        ]
        return f"{rows}{of[0]} against {of[1]} {told(self.mean)}"


def told(mean: Mean) -> str:
    """A difference with its interval: `+0.031 (+0.010 to +0.052)`"""
    if mean.low is None or mean.high is None:
        return f"{signed(mean.value)} (one run)"
    if not mean.error:
        return f"{signed(mean.value)} (in each of {mean.runs} runs, which shows nothing)"
    return f"{signed(mean.value)} ({signed(mean.low)} to {signed(mean.high)})"


def mean(values: Iterable[float]) -> Mean:
    """
    Args:
        values: of independent runs, one or more.
    """
    from scipy.special import stdtrit

    each = np.asarray(list(values), float)
    value, runs = float(each.mean()), len(each)
    if runs < 2:
        return Mean(value, None, None, None, runs)
    if np.ptp(each) <= SAME * max(1.0, abs(value)):
        return Mean(value, 0.0, value, value, runs)
    error = float(each.std(ddof=1)) / math.sqrt(runs)
    half = float(stdtrit(runs - 1, (1 + CONFIDENCE) / 2)) * error
    return Mean(value, error, value - half, value + half, runs)


def at(curve: Curve, rows: int) -> Mean:
    return mean(curve.values[rows].values())


def difference(
    study: Study, first: str, second: str, rows: int, second_rows: int | None = None
) -> Difference:
    """Of two methods, by the draws that both have: what a draw is worth, and the test rows, are
    the same for both."""
    other = rows if second_rows is None else second_rows
    one, two = study.curves[first].values[rows], study.curves[second].values[other]
    each = [one[draw] - two[draw] for draw in sorted(one.keys() & two.keys())]
    return Difference(first, second, rows, other, mean(each))


def best(study: Study, methods: Iterable[str], rows: int) -> str | None:
    """The method with the highest mean among those that were measured; of equals the first."""
    there = [name for name in methods if name in study.curves]
    there = [name for name in there if rows in study.curves[name].values]
    return max(there, key=lambda name: at(study.curves[name], rows).value, default=None)


def cheapest(study: Study, rows: int) -> str:
    """The first method, in the study's order of cost, within one standard error of the best
    (Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3)."""
    top = best(study, study.curves, rows)
    assert top is not None
    highest = at(study.curves[top], rows)
    bound = highest.value - (highest.error or 0.0)
    there = (name for name, curve in study.curves.items() if rows in curve.values)
    return next(name for name in there if at(study.curves[name], rows).value >= bound)


def onset(sizes: Sequence[int], holds: Mapping[int, bool]) -> int | None:
    """The smallest size from which on something holds at each size."""
    found = None
    for rows in reversed(sizes):
        if not holds.get(rows, False):
            break
        found = rows
    return found
