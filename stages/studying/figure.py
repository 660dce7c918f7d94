"""Learning curves as inline SVG: rows on a logarithmic axis, bars for the intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from stages.reporting.figures import labels, ticks
from stages.studying.comparing import Mean, at
from stages.studying.outcomes import Study

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LINE = 920, 420, 56, 20, 48, 20
NAMES = 230  # room for the legend
COLOURS = (
    *("#6b7280", "#1f5fa8", "#b45f06", "#2e7d32", "#8e24aa", "#c62828", "#00838f", "#9e7b00"),
)
DASHES = ("", "7 3")
APART = 3.0  # units that curves are shifted by, so that bars stand side by side


def svg(study: Study) -> str:
    """A line a method, with what it is and how much it is sure of in a title for each point."""
    points = {
        name: [(rows, at(curve, rows)) for rows in study.sizes if rows in curve.values]
        for name, curve in study.curves.items()
    }
    ends = [
        end
        for line in points.values()
        for _, mean in line
        for end in (mean.value, mean.low, mean.high)
        if end is not None
    ]
    low, high = min(ends), max(ends)
    if all(0 <= mean.value <= 1 for line in points.values() for _, mean in line):
        low, high = max(0.0, low), min(1.0, high)  # a share: no interval need go beyond
    scale = ticks(low, high)
    right, bottom = WIDTH - NAMES, HEIGHT - BOTTOM
    first, last = math.log(study.sizes[0]), math.log(study.sizes[-1])

    def x(rows: float, number: int = 0) -> float:
        share = (math.log(rows) - first) / (last - first) if last > first else 0.5
        shift = APART * (number - (len(points) - 1) / 2)
        return round(LEFT + 24 + share * (right - LEFT - 48) + shift, 1)

    def y(value: float) -> float:
        share = (min(max(value, scale[0]), scale[-1]) - scale[0]) / (scale[-1] - scale[0])
        return round(bottom - share * (bottom - TOP), 1)

    def lines() -> Iterator[str]:
        yield f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="curves">'
        yield f"<title>{escape(study.metric)} on the test split by training rows</title>"
        for value, text in zip(scale, labels(scale), strict=True):
            yield f'<path d="M{LEFT} {y(value)}H{right}" class="grid"/>'
            yield f'<text x="{LEFT - 8}" y="{y(value) + 4}" text-anchor="end">{text}</text>'
        for rows in study.sizes:
            at_x = x(rows, 0) + APART * (len(points) - 1) / 2
            yield f'<text x="{at_x:g}" y="{bottom + 18}" text-anchor="middle">{rows:,}</text>'
        middle = (LEFT + right) / 2
        yield f'<text x="{middle:g}" y="{HEIGHT - 8}" text-anchor="middle">training rows</text>'
        for number, (name, line) in enumerate(points.items()):
            colour = COLOURS[number % len(COLOURS)]
            dash = DASHES[number // len(COLOURS) % 2]
            path = "L".join(f"{x(rows, number):g} {y(mean.value):g}" for rows, mean in line)
            style = f'stroke="{colour}" stroke-width="2" fill="none" stroke-dasharray="{dash}"'
            yield f'<path d="M{path}" {style}/>'
            for rows, mean in line:
                yield _point(name, rows, mean, x(rows, number), y, colour)
            place = TOP + 10 + LINE * number
            yield f'<path d="M{right + 18} {place}h22" {style}/>'
            title = escape(study.curves[name].name)
            yield f'<text x="{right + 48}" y="{place + 4}">{title}</text>'
        yield "</svg>"

    return "\n".join(lines())


def _point(name: str, rows: int, mean: Mean, x: float, y: object, colour: str) -> str:
    assert callable(y)
    bar, ends = "", ""
    if mean.low is not None and mean.high is not None:
        bar = f'<path d="M{x} {y(mean.low)}V{y(mean.high)}" stroke="{colour}"/>'
        ends = f" ({mean.low:.3f} to {mean.high:.3f})"
    title = f"{escape(name)}, {rows:,} rows: {mean.value:.3f}{ends}, {mean.runs} runs"
    return (
        f'<g><title>{title}</title>{bar}<circle cx="{x}" cy="{y(mean.value)}" r="3" '
        f'fill="{colour}"/></g>'
    )
