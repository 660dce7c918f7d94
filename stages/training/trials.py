"""What the outcomes of trials, of a model and of a baseline, have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.artifacts import finite
from stages.errors import UserError


def figures(metrics: Mapping[str, float | np.ndarray]) -> dict[str, float]:
    """Metrics, numbers or [1], as JSON; without those that are no number, such as a baseline's
    likelihood, or the loss of training that diverged."""
    return finite({name: float(np.ravel(value)[0]) for name, value in metrics.items()})


def lacks(rows: int | None, count: int, lacking: str) -> bool:
    """Whether a trial of so many rows is to be skipped, for the training split has fewer.

    Args:
        lacking: the parameter `trial.lacking`.

    Raises:
        UserError: they lack, and that is refused.
    """
    if rows is None or rows <= count:
        return False
    if lacking == "refuse":
        raise UserError(
            f"params.yaml: trial.rows: the training split has {count:,} rows, got {rows}; "
            "write at most that, or null for all"
        )
    return True


def skipped(overrides: Mapping[str, Any], metric: str, count: int) -> dict[str, Any]:
    """The outcome of a trial of more rows than the training split's `count`, as JSON."""
    return {"overrides": dict(overrides), "main_metric": metric, "lacking": True, "rows": count}
