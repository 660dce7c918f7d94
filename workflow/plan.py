"""What a run of Snakemake has to do: made once when it starts, read by all of its jobs.

Rules have marker files for outputs, never data: Snakemake deletes the outputs of a rule before
it runs it and writes time stamps into folders, and DVC decides by content. A stage that is up to
date has no job and needs no marker, so no time stamp is ever compared.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages import locks
from stages.errors import UserError, did_you_mean
from workflow import filesystem, leftovers, pipeline, runners
from workflow.decisions import MAYBE, OK, RESTORE, RUN
from workflow.ordering import Ordering, read
from workflow.pipeline import Stage
from workflow.supervision import FOLDER, HOST, token

CONFIG = ("pipeline", "all_pipelines")
VARIABLE = "BRIDGE_PLAN"  # the path of the plan, for the jobs, on other nodes too
RESTORING = "@restore"  # stands for a stage in locks; DVC allows no such name
# The marker says what to run: a `params` of the rule would make Snakemake import pandas, to compare
# it, which takes half a second.
SHELL = (
    f"{shlex.quote(sys.executable)} -ISE workflow/begin.py --marker {{output}}"
    " 2>&1 | tee -ip {log}"
)
UNFINISHED = FOLDER / "unfinished.json"


@dataclass(frozen=True)
class Plan:
    """The stages in DVC's order, and where new entries of dvc.lock and .gitignore belong."""

    stages: list[Stage]
    ordering: Ordering

    def in_state(self, *states: str) -> list[Stage]:
        return [stage for stage in self.stages if stage.state in states]

    def of_markers(self, markers: list[str]) -> list[Stage]:
        """The stages of a rule, by its outputs."""
        return [stage for stage in self.stages if self.marker(stage.address) in markers]

    @property
    def jobs(self) -> list[Stage]:
        return self.in_state(RUN, MAYBE)

    @property
    def restored(self) -> list[Stage]:
        return self.in_state(RESTORE)

    def marker(self, address: str) -> str:
        return f"{FOLDER}/{token(address)}.done"

    def log(self, address: str) -> str:
        return f"{FOLDER}/{token(address)}.log"

    def waits_for(self, stage: Stage) -> list[str]:
        """Markers of the stages upstream that this run has something to do for."""
        busy = {other.address for other in self.stages if other.state != OK}
        return [self.marker(address) for address in stage.upstream if address in busy]

    def why(self, stage: Stage) -> str:
        return f"{stage.address} ({stage.state}): {stage.reason}"


def make(config: Mapping[str, Any]) -> Plan:
    """Decide, and print the decisions. Snakemake cannot tell here whether it will run them.

    Args:
        config: `pipeline`: a dvc.yaml other than that of the root folder; `all_pipelines`: all
            of them.
    """
    if unknown := [key for key in config if key not in CONFIG]:
        raise UserError(f"--config {unknown[0]}: unknown key; {did_you_mean(unknown[0], CONFIG)}")
    filesystem.check(FOLDER, nodes=False)
    file = None if config.get("all_pipelines") else config.get("pipeline", pipeline.ROOT)
    with pipeline.opened(locked=True) as repo:
        _mend_locks()
        order, graph = pipeline.in_order(repo, file)
        leftovers.remove_beside(order)
        stages = pipeline.load(repo, order, graph)
        ordering = read(order)
        if UNFINISHED.exists():
            ordering = ordering.continues(json.loads(UNFINISHED.read_bytes()))
        plan = Plan(stages, ordering)
        if not plan.restored + plan.jobs:  # Snakemake calls no hook where nothing is to be done
            _close(plan)
    for stage in plan.restored + plan.jobs:
        Path(plan.marker(stage.address)).unlink(missing_ok=True)
    os.environ[VARIABLE] = str(FOLDER / f"plan-{HOST}-{os.getpid()}.json")
    print(pipeline.table(stages), file=sys.stderr, flush=True)
    return plan


def start(plan: Plan, *, here: bool) -> None:
    """Before the first job: write down what the jobs need, and what a killed run's heir needs.

    A plan is one file a run; a killed run's is kept for a month, for jobs that are still queued.

    Args:
        here: jobs run on this machine, so that runners can be ready for them.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("plan-*.json"):
        if time.time() - old.stat().st_mtime > 30 * 24 * 3600:
            old.unlink(missing_ok=True)
    _write(Path(os.environ[VARIABLE]), asdict(plan))
    _write(UNFINISHED, plan.ordering.old)
    with pipeline.opened(locked=True) as repo:
        leftovers.remove_from_cache(repo)
    if here:
        runners.start()


def load(environment: Mapping[str, str] = os.environ) -> Plan:
    """The plan of the run that this process belongs to."""
    content = json.loads(Path(environment[VARIABLE]).read_bytes())
    stages = [Stage(**stage) for stage in content["stages"]]
    return Plan(stages, Ordering(**content["ordering"]))


def finish(plan: Plan, *, done: bool) -> None:
    """After the last job. A run that failed leaves its places in the files to the next one."""
    with pipeline.opened(locked=True):
        if done:
            _close(plan)
        else:
            plan.ordering.sort_files()
    Path(os.environ[VARIABLE]).unlink(missing_ok=True)


def _mend_locks() -> None:
    """What a kill of plain DVC has cut off dvc.lock is found again in the cache.

    Raises:
        UserError: one has marks of a merge conflict.
    """
    for path in [Path("dvc.lock"), *Path("workflow").rglob("dvc.lock")]:
        text = path.read_text("utf-8", errors="replace") if path.exists() else locks.EMPTY
        if locks.CONFLICT.search(text):
            raise UserError(locks.conflict(path))
        if locks.torn(text):
            with leftovers.replacing(path) as partial:
                partial.write_text(locks.mended(text), "utf-8")
            print(f"{path}: was cut short; its last entries are looked up anew", file=sys.stderr)


def _close(plan: Plan) -> None:
    plan.ordering.sort_files()
    UNFINISHED.unlink(missing_ok=True)


def _write(path: Path, content: object) -> None:
    with leftovers.replacing(path) as partial:
        partial.write_text(json.dumps(content))
