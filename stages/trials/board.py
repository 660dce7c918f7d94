"""The files of a table of trials."""

from __future__ import annotations

from pathlib import Path

from stages.artifacts import write_json, write_text
from stages.trials import table


def write(folder: Path, content: table.Table) -> None:
    """Write leaderboard.json and leaderboard.csv to a folder."""
    write_json(folder / "leaderboard.json", table.as_json(content))
    write_text(folder / "leaderboard.csv", table.as_csv(content))
