"""Pointer files, `*.hub.yaml`: rows of a hub data set at a pinned commit, loaded by `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, ValidationError, field_validator

from stages import params
from stages.errors import UserError, did_you_mean
from stages.params import Section

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

ENDING = ".hub.yaml"
NAME = r"[A-Za-z0-9][\w.-]*"
BATCH = 20_000  # rows


class Pointer(Section):
    """The keys of a pointer file."""

    dataset: str = Field(description="the data set on the hub: name or owner/name")
    config: str | None = Field(description="its configuration; null: the only one")
    revision: str = Field(description="a commit, 40 hex digits")
    splits: dict[Literal["train", "validation", "test"], str] = Field(
        description="name here to name on the hub"
    )
    columns: dict[str, str] = Field({}, description="name here to name on the hub, where another")

    @field_validator("dataset")
    @classmethod
    def _repository(cls, dataset: str) -> str:
        if not re.fullmatch(f"{NAME}(/{NAME})?", dataset):
            raise ValueError("not a data set of the hub; write name or owner/name")
        if Path(dataset).exists():  # which `datasets` would load, and DVC would not see change
            raise ValueError("is a file or folder here; write its path in prepare.path")
        return dataset

    @field_validator("revision")
    @classmethod
    def _commit(cls, revision: str) -> str:
        if not re.fullmatch("[0-9a-f]{40}", revision):
            raise ValueError(
                "not a commit, and branches and tags move; write the 40 hex digits that the data "
                "set's page shows under History"
            )
        return revision

    @field_validator("splits")
    @classmethod
    def _train(cls, splits: dict[str, str]) -> dict[str, str]:
        if "train" not in splits:
            raise ValueError("no train split; write at least train: <its name on the hub>")
        if len(set(splits.values())) < len(splits):
            raise ValueError("one split of the hub stands for two; write each once")
        return splits


def is_pointer(file: str) -> bool:
    """By its name."""
    return file.lower().endswith(ENDING)


def pointer(file: str) -> Pointer:
    """The content of a pointer file.

    Raises:
        UserError: with every problem found, in the words of params.yaml's.
    """
    try:
        return Pointer.model_validate(params.read(Path(file)))
    except ValidationError as error:
        lines = params.problems(error, Pointer)
        raise UserError(*(line.replace("params.yaml", file, 1) for line in lines)) from None


def rows(file: str, split: str, columns: list[str]) -> tuple[datasets.Dataset, list[str]]:
    """A split (by its name on the hub), and the names of `columns` there.

    Raises:
        UserError: it cannot be had, or a rename is of no column that is read.
    """
    found = pointer(file)
    unknown = [
        f"{file}: columns: {name!r} is not read by prepare; {did_you_mean(name, columns)}"
        for name in found.columns
        if name not in columns
    ]
    if unknown:
        raise UserError(*unknown)
    return _load(file, found, split), [found.columns.get(name, name) for name in columns]


def batches(data: datasets.Dataset, names: list[str]) -> Iterator[list[pa.Array]]:
    """Columns [rows] of at most BATCH rows; a class's number is replaced by its name, also in a
    list."""
    of_lists = {name: getattr(data.features[name], "feature", None) for name in names}
    labels = {name: getattr(of_lists[name] or data.features[name], "names", None) for name in names}
    table = data.with_format("arrow")
    for start in range(0, len(data), BATCH):
        part = table[start : start + BATCH]
        yield [_named(part.column(name).combine_chunks(), labels[name]) for name in names]


def _named(values: pa.Array, labels: list[str] | None) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    if labels is None:
        return values
    if kinds.is_list(values.type) or kinds.is_large_list(values.type):
        named = _named(values.flatten(), labels)
        ends = pa.array(np.cumsum(pc.fill_null(pc.list_value_length(values), 0)), pa.int32())
        return pa.ListArray.from_arrays(
            pa.concat_arrays([pa.array([0], pa.int32()), ends]), named, mask=values.is_null()
        )
    known = pc.if_else(pc.greater_equal(values, 0), values, None)  # -1 stands for no label
    return pa.array(labels).take(known)


def _load(file: str, found: Pointer, split: str) -> datasets.Dataset:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        data = datasets.load_dataset(
            found.dataset, found.config, split=split, revision=found.revision
        )
    except Exception as error:  # of any library that has a hand in it; the data are not ours
        raise UserError(f"{file}: {_reason(error, found)}") from None
    # Where the hub cannot be reached, `datasets` takes the newest revision that it holds.
    places = {Path(place["filename"]).parent.name for place in data.cache_files}
    if places - {found.revision}:
        raise UserError(
            f"{file}: revision: {found.revision} is not in the local cache, which holds another, "
            f"and {_OFFLINE}"
        )
    return data


_OFFLINE = "the hub cannot be reached; run prepare once with network, or take the pinned commit"


def _reason(error: Exception, found: Pointer) -> str:
    """In one line: key, what is wrong, what to write."""
    text = " ".join(str(error).split())
    if match := re.search(r'Unknown split "(.*?)"\. Should be one of \[(.*?)\]', text):
        known = [name.strip(" '") for name in match[2].split(",")]
        return (
            f"splits: no such split on the hub, got {match[1]!r}; {did_you_mean(match[1], known)}"
        )
    if "BuilderConfig" in text or "Config name is missing" in text or "for config" in text:
        return f"config: not one of the data set's, got {found.config!r}; {text[:300]}"
    if "scripts are no longer supported" in text:
        return (
            f"dataset: {found.dataset!r} is made by a script, which is never run; take one of plain"
            " files (its branch refs/convert/parquet often has them), or download it to data/raw"
        )
    if "Revision" in text and "doesn't exist" in text:
        return f"revision: not one of the data set's, got {found.revision!r}; write another commit"
    if "gated" in text or "exist on the Hub" in text:
        return (
            f"dataset: not on the hub, or closed to you, got {found.dataset!r}; mend the name, "
            "or run `hf auth login`"
        )
    if isinstance(error, OSError):
        return f"dataset: {found.dataset!r} is not in the local cache, and {_OFFLINE}"
    return f"dataset: {found.dataset!r} cannot be loaded ({type(error).__name__}: {text[:300]})"
