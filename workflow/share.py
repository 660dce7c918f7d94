"""Give the team what was computed here: `dvc push`, and the run-cache with all that it names.

Run: `make share`, or `python -m workflow share`. What the remote has is not sent again, so that
an interrupted share goes on when it is started again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.errors import UserError
from workflow import pipeline, team

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

NAME = re.compile(r"[0-9a-f]{64}")


def main(arguments: list[str]) -> int:
    """Send, and say how much it was.

    Raises:
        UserError: there is no remote, or it cannot be used.
    """
    if arguments:
        raise UserError(f"python -m workflow share: takes no argument, got {arguments[0]!r}")
    with pipeline.opened(locked=False) as repo:
        remote = team.connect(repo, "share")
        with remote.in_use():
            entries = dict(_entries(repo))
            _send_objects(remote, _present(repo).union(*entries.values()))
            # After what they name, so that nobody finds an entry without its objects.
            new = _send_entries(remote, list(entries))
        print(
            f"shared with {remote.about}: {remote.amount()} sent, {new} new "
            f"result{'s' * (new != 1)} of {len(entries)} here"
        )
    return 0


def _present(repo: Repo) -> set[HashInfo]:
    """Objects of the data and results that the working tree points to, as far as they are here."""
    with repo.lock:  # nobody writes dvc.lock while it is read
        outs = list(repo.index.outs)
    outs = [out for out in outs if out.use_cache and out.can_push and out.hash_info]
    found = (team.objects(out) for out in outs if not (out.remote or out.stage.is_repo_import))
    return {info for infos in found for info in infos if repo.cache.local.exists(info.value)}


def _entries(repo: Repo) -> Iterator[tuple[Path, set[HashInfo]]]:
    """Run-cache entries whose results are whole in the cache, each with its objects."""
    cache = repo.stage_cache
    for path in sorted(Path(cache.cache_dir).glob("??/*/*")):
        entry = (
            cache._load_cache(path.parent.name, path.name) if NAME.fullmatch(path.name) else None
        )
        if entry:
            outs = cache._create_stage(entry).outs
            infos = set().union(*(team.objects(out) for out in outs))
            if all(repo.cache.local.exists(info.value) for info in infos):
                yield path, infos


def _send_objects(remote: team.Remote, infos: set[HashInfo]) -> None:
    # Not `cloud.push`, which takes the files of a folder for sent where the folder's list is there.
    cache = remote.repo.cache.local
    result = remote.repo.cloud.transfer(cache, remote.odb, infos, cache_odb=cache)
    remote.count(result.transferred)
    if result.failed:
        why = remote.heard.errors[0] if remote.heard.errors else "no reason given"
        raise UserError(
            f"{remote.about}: {len(result.failed)} of "
            f"{len(result.failed) + len(result.transferred)} files could not be sent: {why}. The "
            "others are there; `make share` goes on from here"
        )


def _send_entries(remote: team.Remote, paths: list[Path]) -> int:
    from dvc_objects.fs import generic, localfs

    targets = [remote.path(path.parent.name, path.name) for path in paths]
    there = remote.fs.exists(targets) if targets else []
    new = [
        (str(path), target)
        for path, target, known in zip(paths, targets, there, strict=True)
        if not known
    ]
    if new:
        sources, targets = map(list, zip(*new, strict=True))
        generic.copy(localfs, sources, remote.fs, targets)
    return len(new)
