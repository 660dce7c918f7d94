"""Raw files of any supported format, as batches of rows with their line numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from stages.errors import UserError, did_you_mean
from stages.preparing import conll, delimited, encodings, hub, squad
from stages.preparing.columnar import as_text, hub_records, parquet_records
from stages.preparing.delimited import Format, Record
from stages.preparing.normalising import normalise

KINDS = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".conll": "conll",
    ".conllu": "conllu",
}
SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {name: name for name in SPLITS} | dict.fromkeys(("dev", "valid", "val"), "validation")
BATCH = 20_000  # rows

# Data that is not read, by its ending.
_UNREAD = re.compile(r"\.(xlsx?|ods|txt|gz|bz2|xz|zip|zst|feather|arrow|pkl|xml)$")
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
    """One raw file, the split that its name gives to all of its rows, and of a pointer file the
    split's name on the hub."""

    file: str
    split: str | None
    hub_split: str | None = None

    @property
    def name(self) -> str:
        """With a row's line it tells one row from all others."""
        return f"{self.file}: {self.hub_split}" if self.hub_split else self.file


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
    try:
        place.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(
            f"params.yaml: prepare.path: cannot be read ({error.strerror}), got {path[:80]!r}; "
            "write the path of your data"
        ) from None
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
    if hub.is_pointer(path):
        return [Source(path, ours, theirs) for ours, theirs in hub.pointer(path).splits.items()]
    return [Source(path, None)]


def read(
    source: Source,
    columns: Sequence[str],
    form: Format,
    notes: list[str],
    nested: Collection[str] = (),
) -> Iterator[Batch]:
    """All rows of one file, `BATCH` at a time; guesses about the file are added to `notes`.

    Args:
        nested: columns whose lists and objects are read, as their JSON in ASCII.

    Raises:
        UserError: the file cannot be read, lacks a column, or has no rows.
    """
    file = source.file
    total = 0
    try:
        rows = _records(source, list(columns), form, notes, nested)
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
        UserError: its size, time of change or inode is another than before.
    """

    def state() -> tuple[int, int, int] | None:
        path = Path(file)
        if not path.exists():
            return None
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns, stat.st_ino

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
    problems += [
        f"{file.as_posix()}: not a known format, by its ending {file.suffix!r}, but its name is "
        f"that of a split; write it as one of: {', '.join(KINDS)}"
        for file in sorted(folder.iterdir())
        if (split := SPLIT_NAMES.get(file.name.lower().split(".")[0])) and split not in found
        if _UNREAD.search(file.name.lower()) and file.is_file()
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


def _records(
    source: Source, columns: list[str], form: Format, notes: list[str], nested: Collection[str]
) -> Iterator[Record]:
    file = source.file
    kind = "hub" if source.hub_split else KINDS.get(Path(file).suffix.lower())
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
        yield from parquet_records(file, columns, nested)
        return
    if source.hub_split:
        yield from hub_records(file, source.hub_split, columns, nested)
        return
    encoding = encodings.codec(file, form.encoding, notes)
    with open(file, encoding=encoding, errors="surrogateescape", newline="") as lines:
        found = squad.articles(lines.read()) if file.lower().endswith(".json") else None
        if found is not None:
            yield from squad.records(found, file, columns)
            return
        lines.seek(0)
        if kind == "json":
            yield from _json_records(lines, file, columns, nested)
        elif kind in ("conll", "conllu"):
            yield from conll.records(lines, file, columns, kind == "conllu")
        else:
            yield from delimited.records(lines, file, columns, form, notes)


def _batch(rows: list[Record], columns: list[str]) -> Batch:
    reasons = {i: values for i, (_, values) in enumerate(rows) if isinstance(values, str)}
    nothing = ("",) * len(columns)
    table = [nothing if isinstance(values, str) else values for _, values in rows]
    lists = [list(values) for values in zip(*table, strict=True)]
    reasons |= mended(lists)
    return Batch([line for line, _ in rows], dict(zip(columns, lists, strict=True)), reasons)


def mended(columns: Iterable[list[str]]) -> dict[int, str]:
    """Why rows cannot be used whose values hold what UTF-8 cannot, by index. In place, each such
    character is replaced.

    Args:
        columns: values [n] each.
    """
    reasons = {}
    for values in columns:
        if _is_unicode("".join(values)):
            continue
        for i, value in enumerate(values):
            if _UNDECODABLE.search(value):
                values[i], reasons[i] = _UNDECODABLE.sub("\ufffd", value), "undecodable bytes"
    return reasons


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_records(
    lines: Iterator[str], file: str, columns: list[str], nested: Collection[str]
) -> Iterator[Record]:
    keys: set[str] = set()
    wanted = {normalise(column): column for column in columns}
    spelt = {column: column for column in columns}  # as the file spells it
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
        for key in record.keys() - keys:
            if (column := wanted.get(normalise(key))) is not None:
                spelt[column] = key
        keys.update(record)
        values = [
            as_text(record.get(column, record.get(spelt[column], "")), column in nested)
            for column in columns
        ]
        wrong = [column for column, value in zip(columns, values, strict=True) if value is None]
        yield number, f"not a text: column {wrong[0]!r} holds a list or object" if wrong else values
    missing = [column for column in columns if column not in keys]
    if missing and keys:  # without any, no row is an object, and each has its reason
        delimited.positions(file, missing, sorted(keys))
