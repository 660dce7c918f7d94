"""Raw files of any supported format, as batches of rows with their line numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.errors import UserError, did_you_mean
from stages.preparing import delimited, encodings
from stages.preparing.delimited import Format, Record

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
}
SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {name: name for name in SPLITS} | dict.fromkeys(("dev", "valid", "val"), "validation")
BATCH = 20_000  # rows

_UNDECODABLE = re.compile("[\ud800-\udfff]")
_MAGIC = (
    (b"\x1f\x8b", "compressed by gzip", "unpack it"),
    (b"BZh", "compressed by bzip2", "unpack it"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet of old Excel", "save the sheet as CSV"),
    (b"%PDF", "a PDF", "write the rows as CSV"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
)


@dataclass(frozen=True)
class Source:
    """One raw file, and the split that its name gives to all of its rows."""

    file: str
    split: str | None


@dataclass(frozen=True)
class Batch:
    """Rows as lists of equal length; `reasons` holds, by index, why a row cannot be read.

    Texts are valid Unicode: what could not be decoded stands as U+FFFD in a row with a reason.
    """

    lines: list[int]
    columns: dict[str, list[str]]
    reasons: dict[int, str]


def sources(path: str) -> list[Source]:
    """The files of a data set: `path` itself, or in a folder train.*, validation.* and test.*.

    Raises:
        UserError: there is no such file, or none that can be read as rows.
    """
    place = Path(path)
    if place.is_dir():
        return _split_files(place)
    if not place.exists():
        near = [str(other) for other in place.parent.glob("*")] if place.parent.is_dir() else []
        raise UserError(
            f"params.yaml: prepare.path: no such file, got {path!r}; "
            f"{did_you_mean(path, near) if near else 'write the path of your data'}"
        )
    if not place.is_file():
        raise UserError(f"params.yaml: prepare.path: not a file or folder, got {path!r}")
    return [Source(path, None)]


def read(source: Source, columns: Sequence[str], form: Format, notes: list[str]) -> Iterator[Batch]:
    """All rows of one file, `BATCH` at a time; guesses about the file are added to `notes`.

    Raises:
        UserError: the file cannot be read, lacks a column, or has no rows.
    """
    file = source.file
    total = 0
    try:
        rows = _records(file, list(columns), form, notes)
        while part := list(islice(rows, BATCH)):
            total += len(part)
            yield _batch(part, list(columns))
    except UnicodeError as error:
        raise UserError(
            f"{file}: not valid {getattr(error, 'encoding', 'text')} ({error}); "
            "write the right prepare.encoding, or save the file as UTF-8"
        ) from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from None
    if not total:
        raise UserError(f"{file}: no rows; write at least one below the header")


@contextmanager
def unchanged(file: str) -> Iterator[None]:
    """Refuse what was read meanwhile, if the file was written to.

    Raises:
        UserError: its size or time of change is another than before.
    """

    def state() -> tuple[int, int] | None:
        path = Path(file)
        return (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None

    before = state()
    yield
    if state() != before:
        raise UserError(f"{file}: changed while it was read; run again when it is complete")


def _split_files(folder: Path) -> list[Source]:
    found: dict[str, list[str]] = {}
    for file in sorted(folder.iterdir()):
        split = SPLIT_NAMES.get(file.stem.lower())
        if split and file.suffix.lower() in KINDS and file.is_file():
            found.setdefault(split, []).append(file.as_posix())
    problems = [
        f"{folder}: two files for the {split} split: {', '.join(files)}; keep one"
        for split, files in found.items()
        if len(files) > 1
    ]
    if "train" not in found:
        names = ", ".join(sorted(file.name for file in folder.iterdir())[:10]) or "nothing"
        problems.append(
            f"{folder}: a folder without train.csv (or .tsv, .jsonl, .parquet); it holds {names}; "
            "write prepare.path as a file, or name the split files so"
        )
    if problems:
        raise UserError(*problems)
    return [Source(found[split][0], split) for split in SPLITS if split in found]


def _records(file: str, columns: list[str], form: Format, notes: list[str]) -> Iterator[Record]:
    kind = KINDS.get(Path(file).suffix.lower())
    with open(file, "rb") as handle:
        head = handle.read(16)
    for magic, what, advice in _MAGIC:
        if head.startswith(magic):
            raise UserError(f"{file}: is {what}, not rows; {advice}")
    if head.startswith(b"PAR1") and kind != "parquet":
        raise UserError(f"{file}: is Parquet; rename it to end in .parquet")
    if kind is None:
        raise UserError(
            f"{file}: not a known format, by its ending {Path(file).suffix!r}; "
            f"write one of: {', '.join(KINDS)}"
        )
    if form.header and kind != "delimited":
        raise UserError("params.yaml: prepare.header: is for CSV and TSV alone; write null")
    if kind == "parquet":
        yield from _parquet_records(file, columns)
        return
    encoding = encodings.codec(file, form.encoding, notes)
    with open(file, encoding=encoding, errors="surrogateescape", newline="") as lines:
        if kind == "json":
            yield from _json_records(lines, file, columns)
        else:
            yield from delimited.records(lines, file, columns, form, notes)


def _batch(rows: list[Record], columns: list[str]) -> Batch:
    reasons = {i: values for i, (_, values) in enumerate(rows) if isinstance(values, str)}
    nothing = ("",) * len(columns)
    table = [nothing if isinstance(values, str) else values for _, values in rows]
    lists = [list(values) for values in zip(*table, strict=True)]
    for values in lists:
        if _is_unicode("".join(values)):
            continue
        for i, value in enumerate(values):
            if _UNDECODABLE.search(value):
                values[i] = _UNDECODABLE.sub("\ufffd", value)
                reasons[i] = "undecodable bytes"
    return Batch([line for line, _ in rows], dict(zip(columns, lists, strict=True)), reasons)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_records(lines: Iterator[str], file: str, columns: list[str]) -> Iterator[Record]:
    keys: set[str] = set()
    empty = True
    for number, raw in enumerate(lines, 1):
        line = raw.removeprefix("\ufeff").strip()
        if not line:
            continue
        if empty and line.startswith("["):
            raise UserError(f"{file}: is one JSON array; write one object a line instead")
        empty = False
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield (
                number,
                f"not JSON: {getattr(error, 'msg', 'nested too deep or a number too long')}",
            )
            continue
        if not isinstance(record, dict):
            yield number, "not JSON: no object in braces"
            continue
        keys.update(record)
        values = [_json_text(record.get(column, "")) for column in columns]
        wrong = [column for column, value in zip(columns, values, strict=True) if value is None]
        yield number, f"not a text: column {wrong[0]!r} holds a list or object" if wrong else values
    missing = [column for column in columns if column not in keys]
    if missing and keys:  # without any, no row is an object, and each has its reason
        delimited.positions(file, missing, sorted(keys))


def _json_text(value: Any) -> Any:
    """A JSON value as text, None where it has no such form."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return None if isinstance(value, list | dict) else json.dumps(value)


def _parquet_records(file: str, columns: list[str]) -> Iterator[Record]:
    """Rows are numbered from 1, for Parquet has no lines."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as content:
            names = content.schema_arrow.names
            chosen = [names[i] for i in delimited.positions(file, columns, names)]
            first = 1
            for part in content.iter_batches(BATCH, columns=chosen):
                texts = [_parquet_texts(part.column(name), file, name) for name in chosen]
                yield from enumerate(zip(*texts, strict=True), first)
                first += part.num_rows
    except (pa.ArrowException, OSError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file}: not readable as Parquet ({what}); write it anew") from None


def _parquet_texts(array: pa.Array, file: str, name: str) -> list[str]:
    import pyarrow.types as kinds

    if kinds.is_dictionary(array.type):
        array = array.dictionary_decode()
    if kinds.is_nested(array.type):
        raise UserError(f"{file}: column {name!r} holds {array.type}, not texts; flatten it")
    if kinds.is_binary(array.type) or kinds.is_large_binary(array.type):
        raw = array.to_pylist()
        return ["" if v is None else v.decode("utf-8", "surrogateescape") for v in raw]
    if (
        kinds.is_boolean(array.type)
        or kinds.is_integer(array.type)
        or kinds.is_floating(array.type)
    ):
        return [_json_text(value) for value in array.to_pylist()]
    return ["" if value is None else str(value) for value in array.to_pylist()]
