"""Settings as parallel coordinates: one SVG, an axis a parameter, a line a setting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

from stages.reporting.text import number
from stages.trials.table import Row, Table

GAP, TOP, HEIGHT, SIDE = 190, 64, 280, 90
WORST, BEST = (222, 203, 164), (31, 95, 168)  # colours, red green blue

Axis = tuple[str, Callable[[Any], float], list[tuple[float, str]]]
"""Name, place of a value from 0 (bottom) to 1, and marked places with their text."""


def svg(table: Table) -> str:
    """Lines are drawn worst first, coloured by the mean of the main metric on the validation
    split, which is the last axis; the best is thick."""
    rows = table.rows[::-1]
    keys = list(dict.fromkeys(key for row in table.rows for key in row.config))
    axes = [_axis(key, [row.config.get(key) for row in rows]) for key in keys]
    means = [row.mean("validation") for row in rows]
    axes.append(_axis(f"{table.metric} (validation)", means))
    width = 2 * SIDE + GAP * (len(axes) - 1)

    def lines() -> Iterator[str]:
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{TOP + HEIGHT + 30}" '
            'font-family="sans-serif" font-size="12">'
        )
        yield '<rect width="100%" height="100%" fill="#fff"/>'
        yield f'<text x="12" y="20" font-weight="bold">{len(rows)} settings, best thick</text>'
        for at, (name, _, marks) in enumerate(axes):
            x = SIDE + GAP * at
            yield f'<path d="M{x} {TOP}v{HEIGHT}" stroke="#888"/>'
            yield f'<text x="{x}" y="{TOP - 14}" text-anchor="middle">{escape(name)}</text>'
            for place, text in marks:
                yield f'<text x="{x + 5}" y="{_y(place) + 4:g}" fill="#555">{escape(text)}</text>'
        for row, mean in zip(rows, means, strict=True):
            yield _line(row, mean, axes, keys, row is table.best())
        yield "</svg>"

    return "\n".join(lines()) + "\n"


def _line(row: Row, mean: float, axes: Sequence[Axis], keys: Sequence[str], best: bool) -> str:
    values = [*(row.config.get(key) for key in keys), mean]
    points = " ".join(
        f"{SIDE + GAP * at},{_y(place(value)):g}"
        for at, ((_, place, _), value) in enumerate(zip(axes, values, strict=True))
    )
    share = axes[-1][1](mean)
    mixed = [round(low + share * (high - low)) for low, high in zip(WORST, BEST, strict=True)]
    return (
        f'<polyline points="{points}" fill="none" stroke="rgb({mixed[0]},{mixed[1]},{mixed[2]})" '
        f'stroke-width="{4 if best else 1.6}"><title>{escape(str(row.config))}: {mean:.4f}'
        "</title></polyline>"
    )


def _y(place: float) -> float:
    return round(TOP + HEIGHT * (1 - place), 1)


def _axis(name: str, values: Sequence[Any]) -> Axis:
    """Numbers by size, by their logarithm where they span a factor of 8; other values by turn."""
    if not all(type(value) in {int, float} for value in values):
        words = sorted({str(value) for value in values})  # lists have no hash
        step = max(1, len(words) - 1)
        places = {word: at / step for at, word in enumerate(words)}
        return name, lambda value: places[str(value)], [(p, w) for w, p in places.items()]
    distinct = sorted(set(values))
    low, high = distinct[0], distinct[-1]
    scale: Callable[[float], float] = math.log if low > 0 and high >= 8 * low else float

    def place(value: Any) -> float:
        span = scale(high) - scale(low)
        return (scale(value) - scale(low)) / span if span else 0.5

    marked = distinct if len(distinct) <= 6 else [low, high]
    return name, place, [(place(value), number(value)) for value in marked]
