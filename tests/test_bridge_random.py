"""A few random DAGs; `python -m tests.fuzz_bridge 500` does many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fuzz_bridge


@pytest.mark.parametrize("seed", [3, 7])
def test_random_dags(tmp_path: Path, seed: int) -> None:
    assert fuzz_bridge.check(seed, tmp_path, steps=3) == []
