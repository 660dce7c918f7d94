"""Matrices of the report: a table where small, a picture where large."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from stages.reporting.text import clip

TABLE_LABELS = 20  # a matrix up to this size is a table with numbers
PICTURE_LABELS = 100  # beyond this size a picture says nothing; the list of confusions does
LABEL_CHARACTERS = 32
LEVELS = 8
CELL = 11


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
