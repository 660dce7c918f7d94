"""Removes the checkpoints of killed runs that nothing will go on from.

Run: `python -m stages clean`, or `python -m stages clean --all`

A run that ends well removes its own. Orphans are those of runs whose inputs have changed since, and
those of trials, whose parameters are in their command lines, after a week; `--all` also takes the
checkpoints that the next `finetune` and trials would go on from.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from stages import check
from stages.errors import UserError

WEEK = 7 * 24 * 3600


def main(arguments: list[str]) -> int:
    """`python -m stages clean`: exit code 0."""
    if arguments not in ([], ["--all"]):
        raise UserError(
            f"python -m stages clean: takes --all or nothing, got {' '.join(arguments)!r}"
        )
    from stages.training.checkpoints import FOLDER

    found = sorted(FOLDER.glob("*"))
    kept = _present() if found and not arguments else None
    trials = [] if arguments else [folder for folder in found if _of_a_trial_under_way(folder)]
    orphans = [folder for folder in found if folder != kept and folder not in trials]
    size = sum(file.stat().st_size for folder in orphans for file in folder.glob("*"))
    for folder in orphans:
        shutil.rmtree(folder)
    print(f"clean: {len(orphans)} removed, {size / 1e6:.1f} MB")
    if kept in found:
        print(f"clean: {kept} kept, from which finetune goes on; --all removes it too")
    if trials:
        print(f"clean: {len(trials)} of trials kept for a week; --all removes them too")
    return 0


def _of_a_trial_under_way(folder: Path) -> bool:
    from stages.training.checkpoints import TRIALS

    return folder.name.startswith(TRIALS) and time.time() - folder.stat().st_mtime < WEEK


def _present() -> Path:
    """Where finetune with the present inputs would look."""
    from stages.training import fitting
    from stages.training.machine import configure

    params = check.load()
    section = fitting.of_method(params.sections["finetune"], params.run)
    machine = configure(section.device, section.precision, section.threads)
    try:
        return fitting.checkpoints(section, params.run, machine).folder
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename}: missing, so it cannot be told which checkpoints are still "
            "wanted; run `dvc repro`, or `python -m stages clean --all`"
        ) from None
