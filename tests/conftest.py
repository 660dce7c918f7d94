"""Fixtures that several tests share."""

from __future__ import annotations

import os
import signal

import pytest

from tests import team
from tests.project import Project

os.environ.setdefault("WANDB_MODE", "disabled")

# A shell that starts the suite in the background makes it ignore Ctrl-C, and so would every
# process that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Not to be changed: see tests/team.py. Shared between the processes of one run."""
    base = tmp_path_factory.getbasetemp()
    return team.ann((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ann")
