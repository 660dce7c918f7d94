"""Table and plot of many trials: mean and spread over seeds, the best on validation first.

Run: `python -m stages leaderboard FOLDER --KEY VALUE...`, as the stage of workflow/trials/dvc.yaml
does; keys and values say which trials of the folder belong to the grid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.artifacts import write_text
from stages.errors import UserError
from stages.trials import board, plot, table


def main(arguments: list[str]) -> int:
    """Write leaderboard.json, .csv and .svg beside the folder of the trials."""
    if not arguments or arguments[0].startswith("-"):
        raise UserError(
            f"python -m stages leaderboard: a folder of trials comes first, got "
            f"{arguments[0] if arguments else 'nothing'!r}; write results/trials/grid"
        )
    folder, grid = Path(arguments[0]), values(arguments[1:])
    trials = table.read(sorted(folder.glob("*.json")))
    found = table.chosen(trials, grid) if grid else trials
    if not found:
        raise UserError(f"{folder}: no trial of this grid; run them first")
    tabulated = table.tabulate(found)
    board.write(folder.parent, tabulated)
    write_text(folder.parent / "leaderboard.svg", plot.svg(tabulated))
    print(*table.told(tabulated), sep="\n")
    return 0


def values(words: list[str]) -> dict[str, list[Any]]:
    """`--finetune.seed 0 1 --finetune.batch_size 16` as a mapping to lists: how DVC writes a
    mapping of lists into a command."""
    from ruamel.yaml import YAML

    found: dict[str, list[Any]] = {}
    for word in words:
        if word.startswith("--"):
            last = found.setdefault(word.removeprefix("--"), [])
        elif not found:
            raise UserError(f"python -m stages leaderboard: no key before {word!r}; write --KEY")
        else:
            last.append(YAML(typ="safe", pure=True).load(word))
    return found
