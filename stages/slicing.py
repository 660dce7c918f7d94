"""Parts of the test rows on which metrics are computed apart: by column and by length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Parts = list[tuple[str, np.ndarray]]
"""Name and row numbers of each part; together they are all rows, each once."""


@dataclass(frozen=True)
class Slicing:
    """One way to part the rows."""

    title: str
    by: str
    parts: Parts

    def measured(self, metrics: Callable[[np.ndarray], dict[str, Any]]) -> dict[str, Any]:
        """For details.json; `metrics` of the rows of given numbers, as estimates by name."""
        rows = [
            {"name": name, "rows": len(part), "metrics": metrics(part)} for name, part in self.parts
        ]
        return {"title": self.title, "by": self.by, "rows": rows}


def slicings(
    rows: pd.DataFrame, columns: Sequence[str], lengths: np.ndarray, least: int
) -> list[Slicing]:
    """One by each of `columns`, and one by length.

    Args:
        lengths: tokens of each row [n].
        least: rows of a value that is a slice of its own.
    """
    found = [
        Slicing(f"By {column}", column, by_value(rows[column].tolist(), least))
        for column in columns
    ]
    return [*found, Slicing("By length in tokens", "length", by_length(lengths))]


def by_value(values: Sequence[Any], least: int) -> Parts:
    """The values that at least `least` rows have, the most frequent first; all others as one."""
    places: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        places.setdefault(_name(value), []).append(row)
    large = sorted((-len(of), name) for name, of in places.items() if len(of) >= least)
    parts = [(name, np.array(places[name])) for _, name in large]
    if few := [of for of in places.values() if len(of) < least]:
        number = f"{len(few)} value{'s' * (len(few) > 1)} of fewer than {least} rows"
        parts.append((f"other ({number})", np.array(sorted(chain.from_iterable(few)))))
    return parts


def by_length(lengths: np.ndarray) -> Parts:
    """Four parts between the quartiles of these rows, fewer where quartiles coincide."""
    edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75], method="inverted_cdf"))
    numbers = np.searchsorted(edges, lengths, side="left")
    parts = []
    for number in np.unique(numbers):
        part = np.flatnonzero(numbers == number)
        low, high = int(lengths[part].min()), int(lengths[part].max())
        name = f"{low} to {high} tokens" if low < high else f"{low} token{'s' * (low > 1)}"
        parts.append((name, part))
    return parts


def _name(value: Any) -> str:
    if value is None or value != value:  # NaN is not itself  # noqa: PLR0124
        return "(none)"
    return str(value) or "(empty)"
