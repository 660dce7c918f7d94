"""The outcome of a search: a table, a plot of every setting, and the best as parameters to use.

Run: `python -m stages sweep --trials NAME...`, as the stage of workflow/sweep/dvc.yaml does. That
file is made by `python -m workflow sweep`, which plans the search and runs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from stages.artifacts import write_text
from stages.errors import UserError
from stages.params import Section
from stages.trials import board, coordinates, overrides, table

FOLDER = Path("results/sweep")


class Range(Section):
    """Values between two ends, both included."""

    low: float
    high: float
    log: bool = Field(False, description="drawn evenly by order of magnitude")
    whole: bool = Field(False, description="whole numbers only")

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"high: not above low, got {self.high}; write more than {self.low}")
        if self.log and self.low <= 0:
            raise ValueError(f"low: no logarithm, got {self.low}; write more than 0, or log: false")
        for key, end in (("low", self.low), ("high", self.high)):
            if self.whole and not end.is_integer():
                raise ValueError(
                    f"{key}: no whole number, got {end}; write {round(end)}, or whole: false"
                )
        return self


class Sweep(Section):
    parameters: dict[str, list[Any] | Range] = Field(min_length=1)
    strategy: Literal["grid", "random", "tpe"]
    rounds: int = Field(ge=1, description="tpe: each learns from those before")
    trials: int = Field(ge=1, description="settings a round")
    seeds: list[int] = Field(min_length=1, description="of finetune.seed, for each setting")
    seed: int = Field(ge=0, description="of the search")

    @field_validator("parameters")
    @classmethod
    def _has_values(cls, given: dict[str, list[Any] | Range]) -> dict[str, list[Any] | Range]:
        if empty := [key for key, values in given.items() if values == []]:
            raise ValueError(f"{empty[0]} has no value; write a list of some, or a range")
        if "finetune.seed" in given:
            raise ValueError("finetune.seed is no setting; write sweep.seeds")
        return given

    @model_validator(mode="after")
    def _grid_of_lists(self) -> Sweep:
        ranges = [key for key, values in self.parameters.items() if isinstance(values, Range)]
        if self.strategy == "grid" and ranges:
            raise ValueError(
                f"strategy: a grid has no ranges, got {ranges[0]}; write a list of values there, "
                "or strategy: random"
            )
        return self


def main(arguments: list[str]) -> int:
    """Write results/sweep/leaderboard.json and .csv, coordinates.svg and best.yaml."""
    if arguments[:1] != ["--trials"] or not arguments[1:]:
        raise UserError("python -m stages sweep: --trials NAME... comes first; run `dvc repro` "
                        "on workflow/sweep/dvc.yaml, which knows the names")  # fmt: skip
    found = table.tabulate(table.read(FOLDER / f"trials/{name}.json" for name in arguments[1:]))
    board.write(FOLDER, found)
    write_text(FOLDER / "coordinates.svg", coordinates.svg(found))
    write_text(FOLDER / "best.yaml", best(found))
    print(*table.told(found), sep="\n")
    return 0


def best(found: table.Table) -> str:
    """The best setting as a part of params.yaml, with how to use it."""
    row = found.best()
    split = {name: row.mean(name) for name in table.SPLITS}
    lines = [
        f"# The best of {len(found.rows)} settings by {found.metric} on the validation split: "
        f"{split['validation']:.3f} (test {split['test']:.3f}).",
        "# python -m workflow sweep --apply    writes it into params.yaml",
        f"# dvc exp run {' '.join(f'-S {word}' for word in overrides.words(row.config))}",
    ]
    return "\n".join(lines) + "\n" + overrides.as_yaml(row.config)
