"""DVC's resolved stages as plain data, each with what has to be done for it and why.

Run: `python -m workflow.pipeline` prints them. Nothing here changes a file of the project.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.errors import UserError
from workflow import decisions
from workflow.supervision import token

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage as DvcStage

ROOT = "dvc.yaml"  # of the root folder, relative to it


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml, templates resolved, one for each entry of a matrix.

    `address` is DVC's name for it (`train`, `train@2`, `sub/dvc.yaml:train`, `raw.csv.dvc`),
    `upstream` the addresses that it waits for. `state` is one of `decisions.STATES`.
    """

    address: str
    deps: list[str]
    outs: list[str]
    upstream: list[str]
    state: str
    reason: str
    threads: int = 1
    local: bool = False
    resources: dict[str, Any] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        return token(self.address)


@contextmanager
def opened(*, locked: bool) -> Iterator[Repo]:
    """The project of the current folder; `locked`: no other DVC process changes it meanwhile."""
    from dvc.repo import Repo

    with Repo(_wait_for_lock=True) as repo:
        repo.scm_context.quiet = True
        if locked:
            with repo.lock:
                yield repo
        else:
            yield repo


def in_order(repo: Repo, file: str | None = ROOT) -> tuple[list[DvcStage], Any]:
    """What `dvc repro` would look at, in its order, and the graph of edges to upstream.

    Where less than half of all stages are looked at, DVC's order is that of a set, another one in
    each process: here it is then, too, as it would be if DVC looked at more.

    Args:
        file: as `dvc repro FILE`: a dvc.yaml, and what that depends on; None: all of them, as
            `dvc repro --all-pipelines`.

    Raises:
        UserError: there is no such file.
    """
    import networkx
    from dvc.repo.reproduce import get_active_graph, plan_repro

    if file is not None and not Path(file).is_file():
        raise UserError(f"--config pipeline={file}: no such file; write workflow/trials/dvc.yaml")
    graph = get_active_graph(repo.index.graph)
    targets = None if file is None else repo.stage.collect(file)
    taken = set(plan_repro(graph, targets))
    ordered = networkx.DiGraph()
    ordered.add_nodes_from(stage for stage in graph if stage in taken)
    ordered.add_edges_from(edge for edge in graph.edges if taken.issuperset(edge))
    return list(networkx.dfs_postorder_nodes(ordered)), graph


def load(repo: Repo, order: list[DvcStage], graph: Any) -> list[Stage]:
    """The stages in the order in which `dvc repro` would take them, `in_order`'s.

    Raises:
        UserError: a `meta` of dvc.yaml that cannot be read.
    """
    upstream = {stage: list(graph.successors(stage)) for stage in order}
    decided = decisions.decide(repo, order, upstream)
    problems: list[str] = []
    stages = []
    for stage in order:
        state, reason = decided[stage.addressing]
        stages.append(
            Stage(
                address=stage.addressing,
                deps=[str(dep) for dep in stage.deps],
                outs=[str(out) for out in stage.outs],
                upstream=[other.addressing for other in upstream[stage]],
                state=state,
                reason=reason,
                **_needs(stage, problems),
            )
        )
    if problems:
        raise UserError(*problems)
    return stages


def _needs(stage: DvcStage, problems: list[str]) -> dict[str, Any]:
    """What the scheduler should know: `meta: {snakemake: {threads: 2, mem_mb: 4000}}`."""
    meta = stage.meta if isinstance(stage.meta, dict) else {}
    given = meta.get("snakemake", {})
    where = f"{stage.relpath}: {stage.addressing}: meta.snakemake"
    if not isinstance(given, dict):
        problems.append(f"{where}: not a section, got {given!r}; write threads: 2 below it")
        return {}
    needs = dict(given)
    threads = needs.pop("threads", 1)
    local = needs.pop("local", stage.cmd is None)
    if type(threads) is not int or threads < 1:
        problems.append(f"{where}.threads: got {threads!r}; write a whole number of cores")
    gpus = needs.get("gpu", 0)
    if type(gpus) is not int or gpus < 0:
        problems.append(f"{where}.gpu: got {gpus!r}; write a whole number of GPUs")
        needs.pop("gpu")
    if not isinstance(local, bool):
        problems.append(f"{where}.local: got {local!r}; write true or false")
    problems += [
        f"{where}.{key}: got {value!r}; write a number or a text, as mem_mb: 4000"
        for key, value in needs.items()
        if not isinstance(value, int | str) or isinstance(value, bool)
    ]
    return {"threads": threads, "local": local, "resources": needs}


def table(stages: list[Stage]) -> str:
    """One line a stage: its state, its name, the reason."""
    width = max((len(stage.address) for stage in stages), default=0)
    return "\n".join(f"{s.state:8} {s.address:{width}}  {s.reason}".rstrip() for s in stages)


if __name__ == "__main__":
    with opened(locked=True) as project:
        print(table(load(project, *in_order(project))))
