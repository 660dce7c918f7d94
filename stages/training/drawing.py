"""Some of the training rows, drawn so that a smaller draw lies inside a larger one."""

from __future__ import annotations

import numpy as np


def draw(target: np.ndarray, rows: int | None, number: int) -> np.ndarray:
    """Indices [rows] of a draw, rising.

    All rows get an order that depends on `number` alone, and a draw takes the first of it, so the
    16 rows of a draw are among its 32. In every part of the order classes stand as in the whole,
    as far as whole rows allow; targets other than class numbers are drawn without regard to them.

    Args:
        target: targets of all rows, [n] or [n, k].
        rows: how many, at most n; None: all.
        number: of the draw; each gives other rows.
    """
    count = len(target)
    if rows is None or rows == count:
        return np.arange(count)
    generator = np.random.default_rng([number, count])
    shuffled = generator.permutation(count)
    if target.ndim > 1 or not np.issubdtype(target.dtype, np.integer):
        return np.sort(shuffled[:rows])
    _, classes, sizes = np.unique(target, return_inverse=True, return_counts=True)
    place = np.empty(count)  # of each shuffled row among those of its class, from 0 to 1
    for label, size in enumerate(sizes):
        place[classes[shuffled] == label] = (np.arange(size) + 0.5) / size
    return np.sort(shuffled[np.argsort(place, kind="stable")[:rows]])
