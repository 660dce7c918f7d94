"""CSV and TSV as records with their line numbers; delimiter and quoting told from the file."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

from stages.errors import UserError, did_you_mean
from stages.preparing.normalising import normalise

if TYPE_CHECKING:
    from _csv import Reader

Record = tuple[int, Sequence[str] | str]
"""Line on which a row begins, and its values, or else why it cannot be read."""

Quoting = Literal[0, 3]  # csv.QUOTE_MINIMAL, csv.QUOTE_NONE
DELIMITERS = (",", ";", "\t", "|")
SAMPLE_LINES, SAMPLE_CHARACTERS = 1000, 1 << 20
NAMED = 20  # columns that a message lists at most


@dataclass(frozen=True)
class Format:
    """How text files are written; the fields are those of params.yaml's section `prepare`."""

    encoding: str
    delimiter: str
    quoting: str
    header: list[str] | None


def records(
    lines: Iterator[str], file: str, columns: Sequence[str], form: Format, notes: list[str]
) -> Iterator[Record]:
    """The rows of a file with the values of `columns`; blank lines are no rows.

    Raises:
        UserError: no header, a column missing or doubled in it, or a quote never closed.
    """
    csv.field_size_limit(sys.maxsize)  # the default refuses fields over 128 kB
    sample = _sample(lines)
    if not sample:
        raise UserError(f"{file}: is empty; write a header line and rows into it")
    delimiter = form.delimiter
    if delimiter == "auto":
        delimiter = _delimiter(sample, file, columns, form)
    names = form.header or _header(sample, delimiter)
    quoting = _quoting(sample, delimiter, form, len(_trimmed(names)))
    if quoting == csv.QUOTE_NONE and form.quoting == "auto":
        notes.append(f"{file}: quote characters are read as text, for more rows fit that way")
    taken: list[str] = []
    spaced = _spaced(sample, delimiter)
    reader = _reader(_kept(chain(sample, lines), taken), delimiter, quoting, spaced=spaced)
    return _rows(reader, taken, delimiter, file, columns, form)


def _spaced(sample: list[str], delimiter: str) -> bool:
    """Is a space before a quote none of the field's, as in a first line of `"text", "label"`?"""
    first = next((line for line in sample if line.strip()), "")
    return delimiter != "\t" and f'{delimiter} "' in first


def _reader(
    lines: Iterator[str], delimiter: str, quoting: Quoting, *, spaced: bool = False
) -> Reader:
    return csv.reader(
        lines, delimiter=delimiter, quoting=quoting, strict=True, skipinitialspace=spaced
    )


def _kept(lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    """The lines; those that were taken are added to a list, which its owner empties."""
    for line in lines:
        taken.append(line)
        yield line


def positions(file: str, columns: Sequence[str], names: Sequence[str], hint: str = "") -> list[int]:
    """Where in `names` each of `columns` stands.

    Raises:
        UserError: with every column that is missing, and every name that occurs twice.
    """
    clean = [normalise(name) for name in names]
    doubled = sorted({name for name in clean if name and clean.count(name) > 1})
    found = [
        f"{file}: column {name[:60]!r} occurs {clean.count(name)} times; rename all but one"
        for name in doubled[:NAMED]
    ]
    shown = [_printable(name[:60]) for name in clean if name][:NAMED]
    found += [
        f"{file}: no column {column!r}; "
        + (did_you_mean(column, shown) if shown else "its first line names none")
        + hint
        for column in columns
        if normalise(column) not in clean
    ]
    if found:
        raise UserError(*found)
    return [clean.index(normalise(column)) for column in columns]


def _rows(
    reader: Reader,
    taken: list[str],
    delimiter: str,
    file: str,
    columns: Sequence[str],
    form: Format,
) -> Iterator[Record]:
    """
    Args:
        taken: the lines that the reader took since it was emptied.
    """
    names: list[str] = form.header or []
    pick: Callable[[list[str]], Sequence[str]] | None = None
    if names:
        pick = _picker(positions(file, columns, names))
    width = len(names)
    while True:
        start = reader.line_num + 1
        taken.clear()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield from _lost(taken, start, _quoting_reason(error, file, start, reader.line_num))
            continue
        if not row:
            continue
        if len(taken) > 1 and form.quoting == "auto" and _swallows(taken, delimiter, width):
            where = f"lines {start} to {reader.line_num}"
            yield from _lost(
                taken,
                start,
                f"quoting: a quote makes one row of {where}, which are rows by themselves; double "
                "it, or write prepare.quoting: none if quote characters are text, quoted if not",
            )
            continue
        if pick is None:
            names = _trimmed(row)
            hint = "; if line 1 is a row already, name the columns in prepare.header"
            pick, width = _picker(positions(file, columns, names, hint)), len(names)
            continue
        if not (row[0].strip() or any(field.strip() for field in row)):
            continue  # spreadsheets leave rows of delimiters
        if len(row) != width:
            row = _trimmed(row, width)
            if len(row) != width:
                yield start, f"field count: has {len(row)} fields, the header has {width}"
                continue
        if start == 1 and row == form.header:
            raise UserError(f"{file}, line 1: is a header; write prepare.header: null")
        yield start, pick(row)


def _lost(taken: list[str], start: int, reason: str) -> Iterator[Record]:
    """A record for each line that is not blank: one may be a row that a stray quote swallowed."""
    for number, line in enumerate(taken, start):
        if line.strip():
            yield number, reason


def _swallows(lines: list[str], delimiter: str, width: int) -> bool:
    """Are the lines of one row rows of their own, of which a stray quote made one? Texts of
    several lines have tabs in none of them, seldom as many commas in each as rows have, and a space
    after these."""
    spaced = f"{delimiter} "
    fit = sum(line.count(delimiter) == width - 1 and spaced not in line for line in lines)
    least = 2 if delimiter == "\t" else 6
    return width > 1 and len(lines) >= least and fit >= 0.9 * len(lines)


def _printable(name: str) -> str:
    """For messages: a terminal takes no half-decoded or control characters."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)


def _picker(indices: list[int]) -> Callable[[list[str]], Sequence[str]]:
    if len(indices) == 1:
        return lambda row: (row[indices[0]],)
    return itemgetter(*indices)


def _trimmed(row: list[str], width: int = 0) -> list[str]:
    """Without empty fields at the end, beyond `width`: spreadsheets leave rows of delimiters."""
    end = len(row)
    while end > width and not row[end - 1].strip():
        end -= 1
    return row[:end]


def _quoting_reason(error: csv.Error, file: str, start: int, end: int) -> str:
    if "end of data" in str(error):  # every row up to the end of the file is inside the quote
        raise UserError(
            f"{file}, line {start}: a quote opened here is never closed; close it, or write "
            "prepare.quoting: none if quote characters are text"
        )
    where = f" (lines {start} to {end})" if end > start else ""
    return f"quoting: text follows a closing quote; double quotes inside a quoted field{where}"


def _sample(lines: Iterator[str]) -> list[str]:
    sample: list[str] = []
    size = 0
    for line in islice(lines, SAMPLE_LINES):
        sample.append(line if sample else line.removeprefix("\ufeff"))
        size += len(line)
        if size > SAMPLE_CHARACTERS:
            break
    return sample


def _header(sample: list[str], delimiter: str) -> list[str]:
    try:
        return next((row for row in csv.reader(sample, delimiter=delimiter) if row), [])
    except csv.Error:
        return []


def _delimiter(sample: list[str], file: str, columns: Sequence[str], form: Format) -> str:
    """The one that finds most of the columns in the header, or that splits it most."""
    if file.lower().endswith(".tsv"):
        return "\t"

    def fit(delimiter: str) -> tuple[int, int]:
        names = _trimmed([normalise(name) for name in _header(sample, delimiter)])
        if form.header:
            return -abs(len(names) - len(form.header)), 0
        return len({normalise(column) for column in columns} & set(names)), len(names)

    return max(DELIMITERS, key=fit)


def _quoting(sample: list[str], delimiter: str, form: Format, width: int) -> Quoting:
    """Quoted as RFC 4180 has it, unless more of the first lines make sense without."""
    if form.quoting != "auto":
        return csv.QUOTE_NONE if form.quoting == "none" else csv.QUOTE_MINIMAL
    if not any('"' in line for line in sample):
        return csv.QUOTE_MINIMAL
    quoted = _misfits(sample, delimiter, csv.QUOTE_MINIMAL, width)
    unquoted = _misfits(sample, delimiter, csv.QUOTE_NONE, width)
    return csv.QUOTE_NONE if unquoted < quoted else csv.QUOTE_MINIMAL


def _misfits(sample: list[str], delimiter: str, quoting: Quoting, width: int) -> int:
    """Lines of the sample that are part of no row of `width` fields, or that hold a field in
    quotes although these are read as text. Lines after a quote that the sample does not close
    count where they are rows by themselves."""
    taken: list[str] = []
    reader = _reader(_kept(iter(sample), taken), delimiter, quoting)
    count = 0
    cut = len(sample) == SAMPLE_LINES or sum(map(len, sample)) > SAMPLE_CHARACTERS
    while True:
        start = reader.line_num
        taken.clear()
        try:
            row = next(reader)
        except StopIteration:
            return count
        except csv.Error as error:
            if cut and "end of data" in str(error):
                count += len(taken) - 1 if _swallows(taken[1:], delimiter, width) else 0
            else:
                count += reader.line_num - start
            continue
        fits = not row or len(_trimmed(row, width)) == width
        if quoting == csv.QUOTE_NONE:
            fits = fits and not any(len(f) > 1 and f[0] == f[-1] == '"' for f in row)
        count += 0 if fits else reader.line_num - start
