"""Geometry of the report's figures: plain numbers that the templates draw as inline SVG.

Drawn by hand rather than by a plotting library: a figure is a few hundred bytes, its text
can be selected, and its colours follow the reader's light or dark scheme through CSS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stages.reporting.text import clip
from stages.reporting.verdict import Estimate

WIDTH, HEIGHT = 380, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 24, 38
TABLE_LABELS = 20  # a matrix up to this size is a table with numbers
PICTURE_LABELS = 100  # beyond this size a picture says nothing; the list of confusions does
LABEL_CHARACTERS = 32
LEVELS = 8
CELL = 11


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most about `most` + 1 round numbers (steps of 1, 2, 2.5 or 5) that enclose the range."""
    if high <= low:
        low, high = low - max(abs(low), 1) * 0.05, high + max(abs(high), 1) * 0.05
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * power for unit in (1, 2, 2.5, 5, 10) if unit * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def labels(values: Sequence[float]) -> list[str]:
    """Tick labels, all with the decimals that the step between them needs."""
    step = values[1] - values[0] if len(values) > 1 else 1.0
    digits = next((n for n in range(7) if abs(round(step, n) - step) < 1e-9 * max(1, step)), 7)
    return [f"{value:.{digits}f}" for value in values]


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
class Matrix:
    """A matrix, shaded by each value's share of its row.

    `cells` for a table: (value, level 0 to LEVELS). `paths` for a picture: level to SVG path.
    """

    title: str
    rows: str
    columns: str
    labels: list[str]
    short: list[str]
    cells: list[list[tuple[float, int]]]
    paths: dict[int, str]
    confusions: list[tuple[str, str, float, float]]
    margin: int
    cell: int = CELL


def matrix(content: dict[str, Any], most: int = 15) -> Matrix:
    """A matrix of details.json: a table when small, else a picture and the largest values
    off the diagonal (row label, column label, value, share of the row)."""
    names, values = [str(label) for label in content["labels"]], content["values"]
    shares = [[_share(value, row) for value in row] for row in values]
    levels = [[_level(share) for share in row] for row in shares]
    short = [clip(name, LABEL_CHARACTERS) for name in names]
    small = len(names) <= TABLE_LABELS
    cells, paths, confusions = [], {}, []
    if small:
        cells = [list(zip(*both, strict=True)) for both in zip(values, levels, strict=True)]
    else:
        off = [
            (-value, row, column)
            for row, line in enumerate(values)
            for column, value in enumerate(line)
            if row != column and value
        ]
        confusions = [
            (names[row], names[column], -value, shares[row][column])
            for value, row, column in sorted(off)[:most]
        ]
        if len(names) <= PICTURE_LABELS:
            paths = _paths(levels)
    return Matrix(
        title=str(content.get("title") or "Matrix"),
        rows=str(content.get("rows") or "row"),
        columns=str(content.get("columns") or "column"),
        labels=names,
        short=short,
        cells=cells,
        paths=paths,
        confusions=confusions,
        margin=20 + 6 * max(map(len, short)),
    )


def _share(value: float | None, row: list[float | None]) -> float:
    total = sum(abs(other) for other in row if other is not None)
    return abs(value) / total if value and total else 0.0


def _level(share: float) -> int:
    """0 only for nothing, so that a single confusion among thousands of rows is seen."""
    return math.ceil(min(share, 1.0) * LEVELS - 1e-9) if share else 0


def _paths(levels: list[list[int]]) -> dict[int, str]:
    """All cells of one level as one path: a tenth of the bytes of a rectangle each."""
    paths: dict[int, str] = {}
    size = CELL - 1
    for row, line in enumerate(levels):
        for column, level in enumerate(line):
            if level:
                cell = f"M{column * CELL} {row * CELL}h{size}v{size}h-{size}z"
                paths[level] = paths.get(level, "") + cell
    return dict(sorted(paths.items()))
