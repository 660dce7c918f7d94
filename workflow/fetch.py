"""Take from the team what the present parameters, code and data need, and no more.

Run: `make fetch`, or `python -m workflow fetch [--all-pipelines]`; then `make repro` or `snakemake`
restores what came and runs the rest. Which results will be needed is told by workflow/decisions.py,
stage by stage, for what a stage reads is known only when the results before it are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stages.errors import UserError
from workflow import pipeline, team
from workflow.decisions import MAYBE, RUN, decide

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import Stage
    from dvc_data.hashfile.hash_info import HashInfo

EVERYTHING = "--all-pipelines"


def main(arguments: list[str]) -> int:
    """Fetch, and say how much it was and what is left to run.

    Raises:
        UserError: there is no remote, or it cannot be used.
    """
    if set(arguments) - {EVERYTHING}:
        raise UserError(
            f"python -m workflow fetch: takes {EVERYTHING} or nothing, got {' '.join(arguments)}"
        )
    with pipeline.opened(locked=False) as repo:
        remote = team.connect(repo, "fetch")
        with remote.in_use():
            states = _fetch(repo, remote, everything=EVERYTHING in arguments)
        print(f"fetched from {remote.about}: {remote.amount()}", *_told(states), sep="\n")
    return 0


def _fetch(repo: Repo, remote: team.Remote, *, everything: bool) -> dict[str, tuple[str, str]]:
    with repo.lock:  # nobody writes dvc.lock while it is read
        order, graph = pipeline.in_order(repo, None if everything else pipeline.ROOT)
    data = [stage for stage in order if stage.cmd is None and _lacks(stage)]
    if data:  # what `dvc add` tracks; what was edited here stays
        repo.pull(targets=[stage.addressing for stage in data], remote=remote.name)
    upstream = {stage: list(graph.successors(stage)) for stage in order}
    return decide(repo, order, upstream, FromRemote(repo, remote))


def _lacks(stage: Stage) -> bool:
    """Is data missing, or a former version of what it is tracked as? What was edited here is in no
    cache, and stays."""

    def former(out: Output) -> bool:
        info = out.get_hash()
        return out.cache.exists(info.value) if info and info.value else False

    return any(not out.exists or (out.status() and former(out)) for out in stage.outs)


class FromRemote:
    """A `decisions.Source`: brings what it is asked for into the cache, if the remote has it."""

    def __init__(self, repo: Repo, remote: team.Remote) -> None:
        self.repo, self.remote = repo, remote

    def bring_entries(self, key: str) -> None:
        """Of inputs for which there is none here."""
        from dvc_objects.fs import generic, localfs

        folder = Path(self.repo.stage_cache._get_cache_dir(key))
        if folder.is_dir() and any(folder.iterdir()):
            return
        there = self.remote.path(key)
        if not self.remote.fs.exists(there):
            return
        found = list(self.remote.fs.find(there))
        copies = [str(folder / self.remote.fs.name(path)) for path in found]
        generic.copy(self.remote.fs, found, localfs, copies)

    def bring_objects(self, result: Stage) -> None:
        """Of all outputs, but for those that the working tree has with the same content."""
        with self.repo.stage_cache._cache_type_copy():
            for out in result.outs:
                if out.changed_cache() and out.exists and not out.changed_checksum():
                    out.commit()
        missing = [out for out in result.outs if out.changed_cache()]
        self._pull({out.hash_info for out in missing})
        self._pull({info for out in missing for info in team.objects(out)})

    def _pull(self, infos: set[HashInfo]) -> None:
        cache = self.repo.cache.local
        infos = {info for info in infos if not cache.exists(info.value)}
        if not infos:
            return
        # Verified: what does not have its hash is not taken.
        done = self.repo.cloud.transfer(self.remote.odb, cache, infos, cache_odb=cache, verify=True)
        came = {info for info in done.transferred if cache.exists(info.value)}
        self.remote.count(came)
        if done.failed:
            why = self.remote.heard.errors[0] if self.remote.heard.errors else "no reason given"
            raise UserError(f"{self.remote.about}: {len(done.failed)} files did not come: {why}")
        if damaged := sorted(done.transferred - came, key=str):
            raise UserError(
                *(
                    f"{self.remote.about}: {self.remote.odb.oid_to_path(info.value)} is "
                    "damaged; remove it there, and let somebody who has that result run "
                    "`make share`"
                    for info in damaged
                )
            )


def _told(states: dict[str, tuple[str, str]]) -> list[str]:
    runs, waits = (
        [name for name, (state, _) in states.items() if state == wanted] for wanted in (RUN, MAYBE)
    )
    if not runs + waits:
        return [f"all {len(states)} stages have their results: `make repro` runs nothing"]
    data = [name.removesuffix(".dvc") for name in runs if name.endswith(".dvc")]
    lines = [f"{file}: edited here, and left so; `dvc add {file}` takes it up" for file in data]
    if stages := [name for name in runs if not name.endswith(".dvc")]:
        names = ", ".join(stages)
        lines.append(f"nobody has shared {names} for these inputs: `make repro` runs it here")
    if waits:
        lines.append(f"what depends on that is known afterwards: {', '.join(waits)}")
    return lines
