"""Where training reports to: a CSV file always, Weights & Biases on wish."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field

from stages.errors import UserError, did_you_mean
from stages.params import Section

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

Mode = Literal["offline", "online", "disabled"]
FOLDER = "results/run"


class Tracking(Section):
    """params.yaml: tracking. It shapes no output, so no stage depends on it."""

    wandb: Mode
    project: str = Field(min_length=1)
    group: str | None = Field(description="null: <task>-<method>")
    tags: list[str]


def mode(tracking: Tracking) -> Mode:
    """The mode of Weights & Biases: the variable WANDB_MODE, else the parameter."""
    value = os.environ.get("WANDB_MODE") or tracking.wandb
    if value not in get_args(Mode):
        advice = did_you_mean(value, get_args(Mode))
        raise UserError(f"WANDB_MODE: not a known value, got {value!r}; {advice}")
    return value  # type: ignore[return-value]


def make(tracking: Tracking, name: str, tags: list[str], config: dict[str, Any]) -> list[Logger]:
    """Lightning's loggers.

    Args:
        name: group of the run unless `tracking.group` names one.
        tags: added to `tracking.tags`.
        config: the effective parameters.

    Raises:
        UserError: `online` without an API key.
    """
    from lightning.pytorch.loggers import CSVLogger, WandbLogger

    found: list[Logger] = [CSVLogger(FOLDER, name="steps", version="")]
    chosen = mode(tracking)
    if chosen == "disabled":
        return found
    os.environ.setdefault("WANDB_SILENT", "true")
    Path(FOLDER).mkdir(parents=True, exist_ok=True)  # else wandb writes elsewhere
    import wandb

    if chosen == "online":
        try:
            wandb.login()
        except wandb.errors.Error as error:
            raise UserError(
                f"params.yaml: tracking.wandb: cannot log in ({error}), got 'online'; "
                "run `wandb login`, or write offline"
            ) from None
    run = wandb.init(
        project=tracking.project,
        group=tracking.group or name,
        tags=[*tracking.tags, *tags],
        config=config,
        dir=FOLDER,
        mode=chosen,
    )
    return [*found, WandbLogger(experiment=run)]


def finish() -> None:
    """Close the run of Weights & Biases, if one is open."""
    import sys

    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()
