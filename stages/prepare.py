"""Raw rows to clean, labelled, split rows; each row that is not used goes to rejected.parquet.

Run: `python -m stages prepare`, or `dvc repro`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from stages import artifacts, pins
from stages.errors import UserError
from stages.params import Run, Section
from stages.preparing import encodings, profiling, reading, rows, splitting
from stages.preparing.delimited import Format
from stages.preparing.normalising import normalise

if TYPE_CHECKING:
    import pandas as pd

LIBRARIES = ("charset-normalizer", "datasets", "pandas", "pyarrow")


class Prepare(Section):
    """params.yaml: prepare"""

    path: str = Field(
        min_length=1,
        description="a raw file, a folder of split files, or *.hub.yaml",
    )
    encoding: str = Field(description="auto, or a codec of Python")
    delimiter: str = Field(description="of CSV: auto, or one character")
    quoting: Literal["auto", "quoted", "none"] = Field(description="of CSV")
    header: list[str] | None = Field(description="column names of a CSV file without header line")
    split: str | None = Field(min_length=1, description="column that names the split")
    group: str | None = Field(min_length=1, description="column whose rows stay in one split")
    validation: float = Field(gt=0, lt=1, description="share of rows drawn for validation")
    test: float = Field(gt=0, lt=1, description="share of rows drawn for the test")
    seed: int = Field(ge=0, description="of the draw")
    near_duplicates: float = Field(
        ge=0, lt=1, description="similarity from which two rows count as copies; 0: never"
    )
    keep: list[str] = Field(description="other columns to carry along")

    @field_validator("encoding")
    @classmethod
    def _codec(cls, name: str) -> str:
        return encodings.check_codec(name)

    @field_validator("delimiter")
    @classmethod
    def _character(cls, text: str) -> str:
        if text != "auto" and (len(text) != 1 or text in '"\r\n '):
            raise ValueError('not a delimiter; write auto, or one character such as ";" or "\\t"')
        return text

    @field_validator("near_duplicates")
    @classmethod
    def _similarity(cls, share: float) -> float:
        if 0 < share < 0.5:
            raise ValueError("so many rows would count as copies; write 0.5 to 0.99, or 0 for off")
        return share

    @field_validator("header", "keep")
    @classmethod
    def _distinct(cls, names: list[str] | None) -> list[str] | None:
        if names is not None and len({normalise(name) for name in names}) < len(names):
            raise ValueError("a name is listed twice; write each once")
        if names is not None and not all(normalise(name) for name in names):
            raise ValueError("an empty name; write the name of a column")
        return names

    @model_validator(mode="after")
    def _shares(self) -> Prepare:
        if self.header == []:
            raise ValueError("header: no names; write the names of all columns, or null")
        if self.validation + self.test >= 1:
            raise ValueError(
                f"test: {self.test:g} and {self.validation:g} for validation leave no row to train "
                "on; write shares that add up to less than 1"
            )
        return self


def run(params: Prepare, run: Run) -> dict[str, object]:
    """Write data/prepared/ and results/data.json.

    Raises:
        UserError: the data cannot be read, or too little of it can be used.
    """
    kept, rejected, labels, profile = inspect(params, run)
    _write(kept, rejected, labels, _mapping(params, run))
    profile["parameters"] = params.model_dump(mode="json")
    profile["libraries"] = pins.versions(LIBRARIES)
    artifacts.write_json("results/data.json", profile)
    return dict(profile["rows"])


def inspect(
    params: Prepare, run: Run
) -> tuple[pd.DataFrame, pd.DataFrame, list[str], dict[str, Any]]:
    """All that the stage does but writing: the rows kept, those rejected, the labels and the
    profile.

    Raises:
        UserError: the data cannot be read, or too little of it can be used.
    """
    task, notes = run.task, list[str]()
    mapping = _mapping(params, run)
    table, files = _load(params, mapping, notes)
    usable = table.loc[table["reason"] == "", mapping.roles]
    labels = task.labels(usable, run.task_params.data)
    table.loc[usable.index, "reason"] = task.check(usable, labels)
    if params.group:
        splitting.check_groups(table[table["reason"] == ""], params.group)
    splitting.reject_copies(table, task.TARGET, several=task.GENERATIVE)
    table["split"] = splitting.assign(table, params.validation, params.test, notes)
    near_leaks = splitting.reject_near(table, mapping.texts, params.near_duplicates)
    kept, rejected = table[table["reason"] == ""], table[table["reason"] != ""]
    profiling.check_enough(kept, rejected, labels, task, params.path)
    profile = profiling.profile(kept, rejected, labels, mapping.texts, task)
    assert profile["rows"]["read"] == len(table) == len(kept) + len(rejected)
    profile = {"files": files, **profile, "near_duplicate_leaks": near_leaks, "notes": notes}
    return kept, rejected, labels, profile


def _mapping(params: Prepare, run: Run) -> rows.Mapping:
    return rows.Mapping(
        run.task, run.task_params.data, params.keep, params.split, params.group, params.seed
    )


def _load(
    params: Prepare, mapping: rows.Mapping, notes: list[str]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """All rows of the data set, and the SHA-256 of each of its files."""
    import pandas as pd

    problems = [
        f"params.yaml: prepare.keep: prepared rows have a column {name!r} of their own; "
        "remove it, or rename it in the raw file"
        for name in params.keep
        if name in {*rows.OWN, *mapping.roles, *mapping.task.TEXTS, "predicted"}
    ]
    sources = reading.sources(params.path)
    if params.split and sources[0].split:
        problems.append(
            f"params.yaml: prepare.split: {params.path} names the splits already; write null"
        )
    form = Format(params.encoding, params.delimiter, params.quoting, params.header)
    frames, files, wanted = [], {}, mapping.columns()
    for source in sources:
        try:
            with reading.unchanged(source.file):
                for batch in reading.read(source, wanted, form, notes, mapping.nested()):
                    frames.append(rows.frame(batch, source, mapping))
                files[source.file] = artifacts.sha256(source.file)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return pd.concat(frames, ignore_index=True), files


def _ids(part: pd.DataFrame, task: Any) -> list[str]:
    """Of each row; a prompt may have several responses, so there they are of both."""
    keys = [f"{key:016x}" for key in part["key"]]
    if not task.GENERATIVE:
        return keys
    both = (f"{key}\0{target}" for key, target in zip(keys, part[task.TARGET], strict=True))
    return [f"{key:016x}" for key in rows.hashes(both)]


def _write(
    kept: pd.DataFrame, rejected: pd.DataFrame, labels: list[str], mapping: rows.Mapping
) -> None:
    roles, keep = mapping.roles, mapping.keep
    with artifacts.replacing_folder("data/prepared") as folder:
        for split in splitting.SPLITS:
            part = kept.loc[kept["split"] == split, ["key", "file", "line", *roles, *keep]]
            part = part.assign(id=_ids(part, mapping.task))
            part = part[["id", "file", "line", *roles, *keep]]
            artifacts.write_parquet(folder / f"{split}.parquet", part)
        reasons = rejected[["file", "line", "reason", *roles]]
        artifacts.write_parquet(folder / "rejected.parquet", reasons)
        artifacts.write_json(folder / "labels.json", labels)
