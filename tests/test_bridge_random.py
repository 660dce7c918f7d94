"""Twenty random DAGs; `python -m tests.fuzz_bridge 500` does many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fuzz_bridge

# Seed 37 is a folder around an output that will be restored.
STEPS = dict.fromkeys(range(19), 3) | {37: 6}


@pytest.mark.parametrize("seed", STEPS)
def test_random_dags(tmp_path: Path, seed: int) -> None:
    assert fuzz_bridge.check(seed, tmp_path, STEPS[seed]) == []
