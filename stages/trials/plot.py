"""The table of trials as one SVG: a line a configuration, a dot a trial, a bar for the spread."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from stages.reporting.figures import labels, ticks
from stages.trials.table import SPLITS, Row, Table, title

COLOURS = {"validation": "#1f5fa8", "test": "#b45f06"}
LINE, TOP, BOTTOM, AXIS, LETTER = 34, 52, 34, 360, 6.6
MOST = 60  # configurations that are drawn


def svg(table: Table) -> str:
    """The best configurations, best first. Dots are trials; the bar is the mean and one standard
    deviation to each side."""
    rows = table.rows[:MOST]
    left = 24 + LETTER * max(len(title(row.config)) for row in rows)
    values = [value for row in rows for split in SPLITS for value in row.values[split]]
    scale = ticks(min(values), max(values))
    width, bottom = left + AXIS + 30, TOP + LINE * len(rows)

    def x(value: float) -> float:
        return round(left + AXIS * (value - scale[0]) / (scale[-1] - scale[0]), 1)

    def lines() -> Iterator[str]:
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" '
            f'height="{bottom + BOTTOM}" font-family="sans-serif" font-size="12">'
        )
        yield '<rect width="100%" height="100%" fill="#fff"/>'
        yield _text(12, 20, f"{table.metric}, best on the validation split first", weight="bold")
        for number, split in enumerate(SPLITS):
            at = 12 + 110 * number
            yield f'<circle cx="{at + 5}" cy="34" r="4" fill="{COLOURS[split]}"/>'
            yield _text(at + 14, 38, split)
        for value, text in zip(scale, labels(scale), strict=True):
            yield f'<path d="M{x(value)} {TOP}V{bottom}" stroke="#ddd"/>'
            yield _text(x(value), bottom + 18, text, anchor="middle")
        for number, row in enumerate(rows):
            middle = TOP + LINE * number + LINE / 2
            yield _text(12, middle + 4, title(row.config))
            for step, split in ((-6, "validation"), (6, "test")):
                yield from _spread(row, split, middle + step, x)
        yield "</svg>"

    return "\n".join(lines()) + "\n"


def _spread(row: Row, split: str, y: float, x: object) -> Iterator[str]:
    assert callable(x)
    colour, mean, deviation = COLOURS[split], row.mean(split), row.deviation(split)
    if deviation is not None:
        ends = x(mean - deviation), x(mean + deviation)
        yield f'<path d="M{ends[0]} {y}H{ends[1]}" stroke="{colour}" stroke-width="2"/>'
    yield f'<path d="M{x(mean)} {y - 5}v10" stroke="{colour}" stroke-width="2"/>'
    for value in row.values[split]:
        yield f'<circle cx="{x(value)}" cy="{y}" r="3" fill="{colour}" fill-opacity="0.55"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
