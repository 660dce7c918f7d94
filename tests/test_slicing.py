"""Slices: every row in one, rare values pooled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from stages.slicing import by_length, by_value, slicings

VALUES = st.lists(st.sampled_from(["a", "b", "", None, float("nan"), 3, "other"]), min_size=1)


def covers(parts: list[tuple[str, np.ndarray]], rows: int) -> None:
    assert sorted(np.concatenate([part for _, part in parts]).tolist()) == list(range(rows))
    assert all(len(part) for _, part in parts)
    assert len({name for name, _ in parts}) == len(parts)


@given(VALUES, st.integers(1, 5))
def test_each_row_is_in_one_slice_of_a_column(values: list[Any], least: int) -> None:
    parts = by_value(values, least)
    covers(parts, len(values))
    assert all(len(part) >= least for name, part in parts if "fewer than" not in name)


@given(st.lists(st.integers(1, 128), min_size=1))
def test_each_row_is_in_one_slice_by_length(lengths: list[int]) -> None:
    parts = by_length(np.array(lengths))
    covers(parts, len(lengths))
    assert 1 <= len(parts) <= 4


def test_rare_values_are_pooled_and_counted() -> None:
    values = ["food"] * 5 + ["films"] * 6 + ["games", "", None]
    parts = [(name, len(rows)) for name, rows in by_value(values, 3)]
    assert parts == [("films", 6), ("food", 5), ("other (3 values of fewer than 3 rows)", 3)]
    assert [name for name, _ in by_value(["", None], 1)] == ["(empty)", "(none)"]


def test_lengths_are_parted_at_the_quartiles() -> None:
    parts = [(name, len(rows)) for name, rows in by_length(np.arange(1, 101))]
    assert parts == [
        ("1 to 25 tokens", 25), ("26 to 50 tokens", 25), ("51 to 75 tokens", 25),
        ("76 to 100 tokens", 25),
    ]  # fmt: skip
    assert [name for name, _ in by_length(np.array([7, 7, 7]))] == ["7 tokens"]


def test_a_slice_is_measured_on_its_rows_alone() -> None:
    rows = pd.DataFrame({"domain": ["a", "b", "a"]})
    by_domain, _ = slicings(rows, ["domain"], np.array([3, 4, 5]), 1)
    found = by_domain.measured(lambda part: {"sum": part.tolist()})
    assert found == {
        "title": "By domain",
        "by": "domain",
        "rows": [
            {"name": "a", "rows": 2, "metrics": {"sum": [0, 2]}},
            {"name": "b", "rows": 1, "metrics": {"sum": [1]}},
        ],
    }


def test_a_column_of_as_many_values_as_rows_is_parted_at_once() -> None:
    """Minutes, where each value is looked for in all rows."""
    (name, rows), *_ = by_value(range(100_000), 2)
    assert name == "other (100000 values of fewer than 2 rows)" and len(rows) == 100_000
    assert len(by_value(range(100_000), 1)) == 100_000
