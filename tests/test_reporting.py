"""Scales, numbers and judgements of the report."""

from __future__ import annotations

from typing import Any

import pytest

from stages.reporting import figures, text
from stages.reporting.verdict import headline


def test_verdict_takes_the_best_baseline_by_value_not_by_place() -> None:
    point = {"low": 0.0, "high": 1.0}
    metrics = {"main_metric": "f", "split": "test", "rows": 9, "confidence": 0.9}
    baselines = {
        name: {"f": {"value": v, **point}} for name, v in (("a", 0.1), ("b", 0.3), ("c", 0.2))
    }
    baselines["d"] = {"other": {"value": 1.0, **point}}
    head = headline(
        metrics | {"metrics": {"f": {"value": 0.2, **point}}},
        metrics | {"baselines": baselines},
        {
            "difference": {"f": {"value": -0.1, "low": -0.3, "high": 0.1}},
            "mcnemar": {"first_only": 1, "second_only": 2, "p_value": 1.0},
        },
    )
    assert [one.name for one in head.baselines] == ["b", "c", "a"]
    assert head.outcome == "open"
    assert "of b. On the same rows the difference is −0.100, its 90% interval" in head.reason


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.42, 0.43), (5, 5), (0, 0), (-3, 17), (1e-9, 2e-9), (0.1, 12e6)]
)
def test_ticks_enclose_the_range_and_say_what_they_are(low: float, high: float) -> None:
    values = figures.ticks(low, high)
    assert values[0] <= low and values[-1] >= high
    assert 2 <= len(values) <= 8 and values == sorted(set(values))


def test_tick_labels_are_the_ticks() -> None:
    for low, high in ((0.42, 0.43), (0, 25), (0.1, 1.1)):
        values = figures.ticks(low, high)
        assert [float(label) for label in figures.labels(values)] == pytest.approx(values)


@pytest.mark.parametrize("glyph", ["👩\u200d👩\u200d👧", "👍🏽", "e\u0301", "❤\ufe0f"])
def test_clipping_keeps_glyphs_whole(glyph: str) -> None:
    for length in range(20, 40):
        clipped = text.clip(glyph * 40, length)
        assert clipped.endswith("…") and len(clipped) <= length + 1
        assert clipped[:-1] == glyph * (len(clipped[:-1]) // len(glyph))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.84167, "0.842"),
        (0.0, "0.000"),
        (1e-4, "0.0001"),
        (12345, "12,345"),
        (None, "–"),
        (float("nan"), "–"),
        (True, "True"),
        ("a", "a"),
    ],
)
def test_numbers_as_written(value: Any, written: str) -> None:
    assert text.number(value) == written


@pytest.mark.parametrize(
    ("key", "inside", "first"),
    [
        ("chrf", "chrF", "chrF"),
        ("rouge_l", "ROUGE-L", "ROUGE-L"),
        ("macro_f1", "macro F1", "Macro F1"),
    ],
)
def test_metrics_are_named_as_people_write_them(key: str, inside: str, first: str) -> None:
    assert (text.name(key), text.heading(key)) == (inside, first)
