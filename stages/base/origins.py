"""Where a base may lie: in a package, a folder, the Hugging Face cache or on the hub.

`ways`, in each function, is the text of how else to get a base, for errors.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from stages.base import files as base_files
from stages.errors import UserError

KEY = "params.yaml: fetch_model"


@dataclass(frozen=True)
class Origin:
    """A folder that should hold the base, and what results/base.json says about it."""

    folder: Path
    place: str  # how messages name it
    name: str
    revision: str | None
    licence: str | None = None  # where the model card states none
    elsewhere: frozenset[str] = frozenset()  # files of the repo, downloaded or not


def package(name: str, ways: str) -> Origin:
    """Of the folders with weights that an installed distribution lists, the uppermost. The
    package is not imported, so none of its code runs."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise UserError(f"{KEY}.package: not installed, got {name!r}; {ways}") from None
    listed = [Path(str(file)) for file in distribution.files or ()]
    weights = {file.parent for file in listed if file.suffix in (".safetensors", ".bin")}
    folders = weights & {file.parent for file in listed if file.name == base_files.CONFIG}
    highest = min((len(folder.parts) for folder in folders), default=0)
    uppermost = sorted(str(folder) for folder in folders if len(folder.parts) == highest)
    if len(uppermost) != 1:
        found = f"{len(uppermost)} folders ({', '.join(uppermost)})" if uppermost else "no folder"
        raise UserError(
            f"{KEY}.package: {found} with {base_files.CONFIG} beside weights, where one is needed, "
            f"got {name!r}; write another package, or {ways}"
        )
    place = f"package {name} {distribution.version}"
    folder = Path(str(distribution.locate_file(uppermost[0])))
    if not folder.is_dir():
        raise UserError(f"{place}: its files are gone; `pip install --force-reinstall {name}`")
    stated = distribution.metadata
    key = "License-Expression" if "License-Expression" in stated else "License"
    licence = (stated[key] or "").strip() if key in stated else ""
    if "\n" in licence or licence == "UNKNOWN":  # the licence's whole text, or an old default
        licence = ""
    return Origin(folder, place, name, distribution.version, licence or None)


def folder(path: str, ways: str) -> Origin:
    place = Path(path).expanduser()
    if not place.is_dir():
        wrong = "not a folder" if place.exists() else "no such folder"
        raise UserError(f"{KEY}.folder: {wrong}, got {path!r}; {ways}")
    # Named as written: what a link points to differs between machines.
    return Origin(place, path, Path(os.path.normpath(Path.cwd() / place)).name, None)


def offline() -> bool:
    """Whether the hub's client was told to keep off the network (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def repo(name: str, revision: str, allow_pickle: bool, local: bool, ways: str) -> Origin:
    """A snapshot in the Hugging Face cache; what it lacks is downloaded, unless `local`.

    A commit whose files are all cached takes no network; a branch or tag is looked up at the
    hub, or in the cache where the hub cannot be reached."""
    why = ""
    if offline():
        why = ", and HF_HUB_OFFLINE is set"
    elif not local and (reason := _unreachable(name, revision)):
        why = f", and the hub cannot be reached ({reason})"
    local = local or why != ""

    def snapshot(revision: str, patterns: tuple[str, ...]) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import IncompleteSnapshotError

        get = partial(snapshot_download, name, revision=revision, allow_patterns=list(patterns))
        if _listing(name, revision):
            with suppress(IncompleteSnapshotError):
                return Path(get(local_files_only=True))
        try:
            return Path(get(local_files_only=local))
        except IncompleteSnapshotError as error:
            return Path(error.snapshot_path)  # may do; if not, `base_files.problems` says why
        except Exception as error:  # the hub's client lets errors of many libraries through
            wrong = f"not in the Hugging Face cache{why}" if local else _first_line(error)
            refusal = f"{KEY}.repo: {wrong}, got {name!r} at {revision!r}; {ways}"
            raise UserError(_answer(name, revision, error) or refusal) from error

    found = snapshot(revision, base_files.SAFE)
    if allow_pickle and not base_files.weights(found, allow_pickle=False):
        found = snapshot(found.name, base_files.SAFE + base_files.PICKLES)
    # The cache names a snapshot's folder by its commit, whatever the revision was called.
    place = f"{name} at {found.name[:12]}" + (" in the cache" if local else "")
    return Origin(found, place, name, found.name, elsewhere=_listing(name, found.name))


def _listing(name: str, revision: str) -> frozenset[str]:
    """The files that a repo has at a commit, if the cache knows; nothing for a branch or tag,
    of which the cache may know an old state."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    if not re.fullmatch("[0-9a-f]{40}", revision):
        return frozenset()
    try:
        return frozenset(file.path for file in get_cached_repo_tree(name, revision=revision))
    except CachedRepoTreeNotFoundError:
        return frozenset()


def _unreachable(name: str, revision: str) -> str:
    """Why the hub cannot be asked, or nothing. One attempt: the client's own retries take half
    a minute. None is made for a commit whose files the cache lists, for these never change."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if _listing(name, revision):
        return ""
    try:
        HfApi().model_info(name, revision=revision, timeout=10)
    except HfHubHTTPError:
        return ""  # it answers; `snapshot_download` gets the same answer
    except Exception as error:  # of the HTTP library, whichever that is
        return _first_line(error)
    return ""


def _answer(name: str, revision: str, error: Exception) -> str:
    """The hub's refusal as a line that says what to do; nothing for other errors."""
    from huggingface_hub import constants, errors

    hub, login = constants.ENDPOINT, "`hf auth login`, or set the variable HF_TOKEN"
    # Where the client looked in the cache after the hub's refusal, the refusal is the cause.
    wrapped = not isinstance(error, errors.HfHubHTTPError)
    cause = error.__cause__ if wrapped else error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if isinstance(cause, errors.GatedRepoError):
        return f"{KEY}.repo: gated, got {name!r}; accept its terms at {hub}/{name}, then {login}"
    if isinstance(cause, errors.RepositoryNotFoundError):
        return (
            f"{KEY}.repo: not on {hub}, or private, got {name!r}; check the name, "
            f"or if it is private, {login}"
        )
    if isinstance(cause, errors.RevisionNotFoundError):
        return (
            f"{KEY}.revision: {name} has no such revision, got {revision!r}; "
            "write a commit, a branch such as main, or a tag"
        )
    if status in (401, 403):
        return (
            f"{KEY}.repo: {hub} refuses access (HTTP {status}), got {name!r}; your token is no "
            f"longer valid or may not read this: {login}"
        )
    return ""


def _first_line(error: BaseException) -> str:
    """Of an error that one of another library wraps, the inner one: it names the cause."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}".strip().partition("\n")[0]
