"""Fixtures that several tests share."""

from __future__ import annotations

import os

os.environ.setdefault("WANDB_MODE", "disabled")
