"""Removes the checkpoints of killed runs that nothing will go on from.

Run: `python -m stages clean`, or `python -m stages clean --all`

A run that ends well removes its own. Orphans are those of runs of `finetune` whose inputs have
changed since, or that ran on another kind of machine; and after a week those of trials and of
pretraining, whose inputs are not known here. `--all` also takes the checkpoints that the next runs
would go on from.
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
    others = [] if arguments else [folder for folder in found if _may_be_under_way(folder)]
    orphans = [folder for folder in found if folder != kept and folder not in others]
    size = sum(file.stat().st_size for folder in orphans for file in folder.glob("*"))
    for folder in orphans:
        shutil.rmtree(folder)
    print(f"clean: {len(orphans)} removed, {size / 1e6:.1f} MB")
    if kept in found:
        print(f"clean: {kept} kept, from which finetune goes on; --all removes it too")
    if others:
        what = f"{len(others)} of trials and pretraining"
        print(f"clean: {what} kept for a week; --all removes them too")
    return 0


def _may_be_under_way(folder: Path) -> bool:
    from stages.training.checkpoints import PRETRAINING, TRIALS

    recent = time.time() - folder.stat().st_mtime < WEEK
    return recent and folder.name.startswith((TRIALS, PRETRAINING))


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
