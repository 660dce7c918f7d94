"""Scales, numbers and judgements of the report."""

from __future__ import annotations

from typing import Any

import pytest

from stages.reporting import figures, text
from stages.reporting.verdict import Estimate, headline


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
    ("low", "high"),
    [
        (0.0, 1.0),
        (0.42, 0.43),
        (5, 5),
        (0, 0),
        (-3, 17),
        (1e-9, 2e-9),
        (0.1, 12e6),
        (1e-15, 3e-15),
        (0.3, 0.1 + 0.2),
        (7.0, 7.0 + 1e-7),
    ],
)
def test_ticks_enclose_the_range_and_say_what_they_are(low: float, high: float) -> None:
    values = figures.ticks(low, high)
    assert values[0] <= low and values[-1] >= high
    assert 2 <= len(values) <= 8 and values == sorted(set(values))


def test_tick_labels_are_the_ticks() -> None:
    for low, high in ((0.42, 0.43), (0, 25), (0.1, 1.1), (1e-15, 3e-15), (7.0, 7.0 + 1e-7)):
        values = figures.ticks(low, high)
        labels = figures.labels(values)
        assert len(set(labels)) == len(values)
        assert [float(label) for label in labels] == pytest.approx(values, rel=1e-9, abs=0)


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


@pytest.mark.parametrize("values", [[1e-15, 3e-15], [0.3, 0.1 + 0.2], [1e-15, 1e-15]])
def test_figures_of_tiny_and_of_almost_equal_values(values: list[float]) -> None:
    assert figures.chart("loss", [1, 2], {"train": [*values]}, 1)
    found = figures.forest([Estimate("a", value, *values) for value in values])
    assert all(0 <= place <= 100 for _, row in found.rows for place in row.values())
    points = [{"x": x, "rows": 1, "y": {"value": x, "low": None, "high": None}} for x in values]
    assert figures.reliability({"points": points, "title": "", "x": "", "y": ""})


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0654, "+0.065"),
        (-0.0208, "−0.021"),
        (0.0002, "+0.0002"),
        (0.0, "+0.000"),
        (1e-17, "+0.000"),
    ],
)
def test_a_difference_does_not_read_as_none(value: float, written: str) -> None:
    assert text.signed(value) == written


@pytest.mark.parametrize(("low", "p", "told"), [(0.001, 0.06, True), (0.001, 0.04, False),
                                                (-0.001, 0.04, True), (-0.001, 0.06, False)])  # fmt: skip
def test_two_tests_that_disagree_are_explained(low: float, p: float, told: bool) -> None:
    point = {"accuracy": {"value": 0.1, "low": 0.0, "high": 1.0}}
    common = {"main_metric": "accuracy", "split": "test", "rows": 9, "confidence": 0.95}
    comparison = {
        "difference": {"accuracy": {"value": 0.1, "low": low, "high": 0.2}},
        "mcnemar": {"first_only": 1, "second_only": 2, "p_value": p},
    }
    head = headline(common | {"metrics": point}, common | {"baselines": {"a": point}}, comparison)
    assert ("Near the border the interval and this test may disagree" in head.reason) == told
