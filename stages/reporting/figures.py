"""Geometry of the report's figures: plain numbers that the templates draw as inline SVG.

Drawn by hand rather than by a plotting library: a figure is a few hundred bytes, its text
can be selected, and its colours follow the reader's light or dark scheme through CSS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.reporting.text import count, interval, number
from stages.reporting.verdict import Estimate

WIDTH, HEIGHT = 380, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 24, 38
SQUARE = 320
ENDS = ("value", "low", "high")
SAME = 1e-9  # share of a number that ends apart by less are equal
DIGITS = 7  # decimals at most of a tick's label


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most about `most` + 1 round numbers (steps of 1, 2, 2.5 or 5) that enclose the range;
    ends that are equal but for rounding get some room."""
    if high - low <= SAME * max(abs(low), abs(high)):
        low, high = low - max(abs(low), 1) * 0.05, high + max(abs(high), 1) * 0.05
    raw = (high - low) / most
    exponent = math.floor(math.log10(raw))
    power = 10.0**exponent
    step = next(unit * power for unit in (1, 2, 2.5, 5, 10) if unit * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 2 - exponent) for index in range(first, last + 1)]


def labels(values: Sequence[float]) -> list[str]:
    """Tick labels, all with the decimals that the step between them needs; of tiny steps with the
    significant digits (`1.5e-15`)."""
    step = values[1] - values[0] if len(values) > 1 else 1.0
    for digits in range(DIGITS + 1):
        if abs(round(step, digits) - step) < 1e-3 * step:
            return [f"{value:.{digits}f}" for value in values]
    for digits in range(1, 17):
        told = [f"{value:.{digits}g}" for value in values]
        if all(abs(float(a) - b) < 1e-3 * step for a, b in zip(told, values, strict=True)):
            return told
    return [f"{value:.17g}" for value in values]


@dataclass(frozen=True)
class Line:
    """A series of a chart; `path` breaks where a value is missing."""

    name: str
    path: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """Lines over epochs. Ticks are (position, text); positions are in SVG units."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    mark: tuple[float, str, str] | None
    width: int = WIDTH
    height: int = HEIGHT


def chart(
    title: str,
    epochs: Sequence[float],
    series: dict[str, list[float | None]],
    best: float | None,
) -> Chart | None:
    """Lines over epochs with the best epoch marked; None where there is nothing to draw."""
    known = [value for values in series.values() for value in values if value is not None]
    if not known:
        return None
    y_values = ticks(min(known), max(known))
    first, last = min(epochs), max(epochs)
    x_values = [x for x in ticks(first, last, 8) if first <= x <= last and x == int(x)] or [first]

    def x(epoch: float) -> float:
        span = (epoch - first) / (last - first) if last > first else 0.5
        return round(LEFT + 10 + span * (WIDTH - LEFT - RIGHT - 20), 1)

    def y(value: float) -> float:
        span = (value - y_values[0]) / (y_values[-1] - y_values[0])
        return round(HEIGHT - BOTTOM - span * (HEIGHT - TOP - BOTTOM), 1)

    lines = [
        _line(
            name,
            [
                value if value is None else (x(epoch), y(value))
                for epoch, value in zip(epochs, values, strict=True)
            ],
        )
        for name, values in series.items()
    ]
    mark = None
    if best is not None and best in epochs:
        at = x(best)
        anchor = "start" if at < WIDTH * 0.3 else "end" if at > WIDTH * 0.75 else "middle"
        mark = (at, anchor, f"best epoch {best:g}")
    return Chart(
        title,
        lines,
        [(x(value), f"{value:g}") for value in x_values],
        [(y(value), text) for value, text in zip(y_values, labels(y_values), strict=True)],
        mark,
    )


@dataclass(frozen=True)
class Reliability:
    """Points beside the diagonal, in a square; positions and radii are in SVG units.

    `points`: (x, y, radius, y of the interval's low end, of its high end). `rows`: the same
    numbers in words: x, rows, y with its interval.
    """

    title: str
    x: str
    y: str
    note: str
    points: list[tuple[float, ...]]
    ticks: list[tuple[float, float, str]]
    rows: list[tuple[str, str, str]]
    size: int = SQUARE


def reliability(content: dict[str, Any]) -> Reliability:
    """A curve of details.json; both axes have the same scale, of shares up to 1."""
    points = content["points"]
    ends = [[one["y"].get(key) for key in ("value", "low", "high")] for one in points]
    known = [value for of in ends for value in of if value is not None]
    ends_of_x = [one["x"] for one in points]
    top = max(ends_of_x + known)
    shares = top <= 1.0 and min(ends_of_x + known) >= 0.0
    scale = ticks(min(ends_of_x + known), 1.0 if shares else top)
    most = max(one["rows"] for one in points)

    def along(value: float) -> float:
        return (value - scale[0]) / (scale[-1] - scale[0]) * (SQUARE - LEFT - RIGHT - BOTTOM / 2)

    def x(value: float) -> float:
        return round(LEFT + along(value), 1)

    def y(value: float) -> float:
        return round(SQUARE - BOTTOM - along(value), 1)

    return Reliability(
        title=str(content["title"]),
        x=str(content["x"]),
        y=str(content["y"]),
        note=str(content.get("note") or ""),
        points=[
            (
                x(one["x"]),
                y(value),
                round(2.5 + 4 * math.sqrt(one["rows"] / most), 1),
                y(value if low is None else low),
                y(value if high is None else high),
            )
            for one, (value, low, high) in zip(points, ends, strict=True)
        ],
        ticks=[(x(v), y(v), text) for v, text in zip(scale, labels(scale), strict=True)],
        rows=[(number(one["x"]), count(one["rows"]), interval(one["y"])) for one in points],
    )


def _line(name: str, points: Sequence[tuple[float, float] | None]) -> Line:
    path, pen = "", "M"
    for point in points:
        path += f"{pen}{point[0]:g} {point[1]:g}" if point else ""
        pen = "L" if point else "M"
    return Line(name, path, [point for point in points if point])


@dataclass(frozen=True)
class Forest:
    """Estimates on one axis; positions are percentages of the width, so text never shrinks."""

    rows: list[tuple[Estimate, dict[str, float]]]
    ticks: list[tuple[float, str]]


def forest(estimates: Sequence[Estimate]) -> Forest:
    """One row an estimate, the intervals of all on the same scale."""
    known = [
        value for one in estimates for value in (one.value, one.low, one.high) if value is not None
    ]
    scale = ticks(min(known, default=0.0), max(known, default=1.0), 4)

    def position(value: float | None) -> float | None:
        if value is None:
            return None
        return round(4 + 92 * (value - scale[0]) / (scale[-1] - scale[0]), 2)

    rows = []
    for one in estimates:
        ends = {"value": one.value, "low": one.low, "high": one.high}
        placed = {key: position(value) for key, value in ends.items()}
        rows.append((one, {key: place for key, place in placed.items() if place is not None}))
    marks = [(4 + 92 * index / (len(scale) - 1), text) for index, text in enumerate(labels(scale))]
    return Forest(rows, [(round(place, 2), text) for place, text in marks])


@dataclass(frozen=True)
class Slices:
    """Metrics of parts of the rows; the main metric also drawn, on one axis.

    `rows`: name, rows, the main metric's place (as in `Forest`), each metric in words. `whole`:
    the place of the main metric on all rows. `left_out`: slices not shown.
    """

    title: str
    metrics: list[str]
    rows: list[tuple[str, int, dict[str, float], list[str]]]
    whole: float | None
    left_out: int


def slices(content: dict[str, Any], metric: str, whole: float | None, most: int = 30) -> Slices:
    """A slicing of details.json; of more than `most` slices those where `metric` is lowest."""
    found = content["rows"]
    names = sorted({name: 0 for one in found for name in one["metrics"]}, key=metric.__ne__)
    shown = found
    if len(found) > most:
        values = [one["metrics"][metric]["value"] for one in found]
        known = [i for i, value in enumerate(values) if value is not None]
        shown = [found[i] for i in sorted(known, key=values.__getitem__)[:most]]
    of = [Estimate("", whole, None, None)]
    of += [Estimate("", *(one["metrics"][metric][e] for e in ENDS)) for one in shown]
    places = [place for _, place in forest(of).rows]
    return Slices(
        title=str(content["title"]),
        metrics=names,
        rows=[
            (str(one["name"]), one["rows"], place, [interval(one["metrics"][n]) for n in names])
            for one, place in zip(shown, places[1:], strict=True)
        ],
        whole=places[0].get("value"),
        left_out=len(found) - len(shown),
    )
