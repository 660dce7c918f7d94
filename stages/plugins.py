"""Tasks and methods, found by file name: adding one is adding a file."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Literal

from stages.errors import UserError, did_you_mean

Kind = Literal["tasks", "methods"]


def names(kind: Kind) -> list[str]:
    """File names, without the ending, of the plug-ins of a kind; sorted."""
    folder = importlib.import_module(f"stages.{kind}").__path__
    files = [file for place in folder for file in Path(place).glob("*.py")]
    return sorted(file.stem for file in files if file.stem not in {"__init__", "base"})


def load(kind: Kind, name: str) -> ModuleType:
    """The module of one plug-in.

    Raises:
        UserError: no file has that name.
    """
    known = names(kind)
    if name not in known:
        key = f"run.{kind[:-1]}"
        raise UserError(
            f"params.yaml: {key}: no file stages/{kind}/{name}.py, got {name!r}; "
            f"{did_you_mean(name, known)}"
        )
    return importlib.import_module(f"stages.{kind}.{name}")
