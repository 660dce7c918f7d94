"""The report of a study: methods compared at several numbers of training rows.

Run: `python -m stages study FOLDER --method NAME... --rows N... --draw N... --tolerance SHARE
--at_hand N`, as the last stage of workflow/studies/when_to_finetune/dvc.yaml does. The methods
stand in the order of their cost, the cheapest first; `--at_hand 0` means the training split's rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from stages import pins
from stages.artifacts import read_json, write_json, write_text
from stages.errors import UserError
from stages.studying import findings, outcomes, page
from stages.studying.outcomes import Study

LIBRARIES = ("jinja2", "numpy", "scipy")
RUNS = Path("results/run")


def main(arguments: list[str]) -> int:
    """Write FOLDER.json and FOLDER.html, and print the same with the minutes that runs took.

    Raises:
        UserError: a trial is missing, or the tolerance is no share.
    """
    parser = argparse.ArgumentParser(prog="python -m stages study")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", nargs="+", required=True)
    parser.add_argument("--rows", nargs="+", type=int, required=True)
    parser.add_argument("--draw", nargs="+", type=int, required=True)
    parser.add_argument("--tolerance", type=float, required=True)
    parser.add_argument("--at_hand", type=int, default=0)
    given = parser.parse_args(arguments)
    if not 0 <= given.tolerance < 1 or given.at_hand < 0:
        raise UserError(
            f"study: tolerance and at_hand: got {given.tolerance} and {given.at_hand}; write a "
            "share from 0 to 1, and a number of rows"
        )
    pins.require(LIBRARIES, "")
    study = outcomes.read(given.folder, given.method, given.rows, given.draw)
    rows = given.at_hand or read_json("results/data.json")["splits"]["train"]["rows"]
    content = findings.found(study, given.tolerance, rows)
    write_json(given.folder.with_suffix(".json"), content)
    write_text(given.folder.with_suffix(".html"), page.render(study, content))
    spent = minutes(study, given.folder.relative_to("results"), given.draw)
    write_json(RUNS / given.folder.relative_to("results").with_suffix(".json"), spent)
    print(*findings.lines(study, content, spent), sep="\n")
    print(f"report: {given.folder.with_suffix('.html')}")
    return 0


def minutes(study: Study, folder: Path, draws: Iterable[int]) -> dict[str, dict[int, float]]:
    """Of a run on average, by method and size: of those that ran on this machine."""
    found: dict[str, dict[int, float]] = {}
    for method, curve in study.curves.items():
        found[method] = {}
        for rows in curve.values:
            files = [RUNS / folder / f"{method}-{rows}-{draw}.json" for draw in draws]
            seconds = [read_json(file)["seconds"] for file in files if file.exists()]
            if seconds:
                found[method][rows] = round(sum(seconds) / len(seconds) / 60, 3)
    return found
