"""What a rule calls: one stage as `dvc repro --single-item` runs it, side by side with others.

Run: `python -m workflow.run_stage NAME`; rules add `--marker FILE`, and name themselves by
`--rule NAME` instead, of which one is for all that is taken from the cache.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from workflow import hardening, journal, pipeline, plan
from workflow.ordering import Ordering
from workflow.supervision import stage_lock

if TYPE_CHECKING:
    from dvc.repo import Repo

SAME_TIME = 1_000_000_000  # of all markers, so that none is ever newer than another


def run(address: str, ordering: Ordering) -> None:
    """Bring one stage up to date: DVC decides whether it is skipped, restored or run."""
    with stage_lock(address) as descriptor:
        hardening.apply(address, descriptor, ordering)
        with pipeline.opened(locked=False) as repo:
            if not _record_finished(repo, address):
                _reproduce(repo, [address])
        journal.forget(address)


def restore(addresses: list[str], ordering: Ordering) -> None:
    """Take the results of several stages from the cache; no command is run."""
    with stage_lock(plan.RESTORING) as descriptor:
        hardening.apply(plan.RESTORING, descriptor, ordering)
        hardening.never_run()
        with pipeline.opened(locked=False) as repo:
            _reproduce(repo, addresses)


def _reproduce(repo: Repo, addresses: list[str]) -> None:
    """`dvc repro --single-item`, which waits while plain `dvc` uses the stage's files."""
    from dvc.exceptions import ReproductionError
    from dvc.lock import LockError

    waiting = False
    while True:
        try:
            repo.reproduce(addresses, single_item=True)
            return
        except ReproductionError as error:
            # The repository's lock is waited for inside, so this is about paths of the stage.
            if not isinstance(error.__cause__, LockError):
                raise
            if not waiting:
                print(f"waiting: {error.__cause__}".partition("\n\n")[0], flush=True)
            waiting = True
            time.sleep(0.5)


def _record_finished(repo: Repo, address: str) -> bool:
    """Record the result of a command that ended when its recording failed or was killed.

    These are the steps of `Stage.run` and `Stage.reproduce` that follow the command.
    """
    from dvc.repo import lock_repo

    with lock_repo(repo), repo.scm_context(quiet=True):
        (stage,) = repo.stage.collect(address)
        if not journal.holds(stage):
            return False
        print(f"Stage '{address}' had finished; recording its outputs", flush=True)
        uncached = any(not (o.use_cache or o.is_metric or o.is_plot) for o in stage.outs)
        stage.save(run_cache=not uncached)
        stage.commit()
        stage.dump(update_pipeline=False)
    return True


def _end_quickly(signum: int, frame: object) -> None:
    """End the command first, so that DVC can leave its locks in order."""
    import psutil

    for child in psutil.Process().children():
        child.send_signal(signum)
    raise SystemExit(128 + signum)


def _marked(markers: list[str]) -> None:
    for marker in map(Path, markers):
        marker.touch()
        os.utime(marker, (SAME_TIME, SAME_TIME))


def _causes(error: BaseException | None) -> str:
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__
    return ": ".join(texts)


def _log() -> None:
    """DVC's messages, as its command line shows them."""
    import logging

    from dvc.logger import setup

    if not logging.getLogger("dvc").handlers:
        setup(logging.INFO)
    logging.getLogger("dvc").setLevel(logging.INFO)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", nargs="?")
    parser.add_argument("--rule")
    parser.add_argument("--marker", nargs="*", default=[])
    arguments = parser.parse_args(argv)

    from dvc.exceptions import DvcException

    _log()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _end_quickly)
    present = plan.load() if plan.VARIABLE in os.environ else None
    ordering = present.ordering if present else Ordering()
    name = arguments.stage or arguments.rule
    try:
        if present and arguments.rule == plan.RESTORE_RULE:
            restore([stage.address for stage in present.restored], ordering)
        else:
            run(present.of_rule(name) if present and arguments.rule else name, ordering)
    except (DvcException, OSError) as error:
        print(f"ERROR: {name}: {_causes(error)}", file=sys.stderr)
        return 1
    _marked(arguments.marker)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
