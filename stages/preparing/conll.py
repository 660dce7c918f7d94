"""CoNLL files, one word a line: a sentence is a row, each of its columns a list in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from stages.preparing import delimited
from stages.preparing.delimited import Record

UNIVERSAL = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""Columns of CoNLL-U (universaldependencies.org/format.html)."""
FIRST, LAST = "tokens", "tags"
"""Names, in other CoNLL files, of the first and the last column; all others have their number."""


def records(
    lines: Iterator[str], file: str, columns: Sequence[str], universal: bool
) -> Iterator[Record]:
    """The sentences of a file with the values of `columns`. Sentences end at a line that is empty
    or white, and before -DOCSTART-, which is part of none. Of CoNLL-U the words count, not what
    they are contracted to ("1-2"), nor words that were left out ("1.1").

    Raises:
        UserError: a column is missing.
    """
    places: list[int] | None = None
    for number, sentence in _sentences(lines, universal):
        width = len(sentence[0])
        if places is None:
            places = _places(file, columns, width, universal)
        strange = next((i for i, word in enumerate(sentence) if len(word) != width), None)
        if strange is not None:
            yield (
                number,
                (
                    f"field count: word {strange + 1} of the sentence has {len(sentence[strange])} "
                    f"fields, the first has {width}"
                ),
            )
            continue
        if max(places, default=0) >= width:
            yield number, f"field count: has {width} fields"
            continue
        yield number, [json.dumps([word[place] for word in sentence]) for place in places]


def _places(file: str, columns: Sequence[str], width: int, universal: bool) -> list[int]:
    """Where the columns are; the last is counted from the end."""
    numbers = [FIRST, *map(str, range(1, width - 1)), *[LAST] * (width > 1)]
    names = UNIVERSAL if universal else numbers
    found = delimited.positions(file, columns, names)
    return [-1 if names[at] == LAST else at for at in found]


def _sentences(lines: Iterator[str], universal: bool) -> Iterator[tuple[int, list[list[str]]]]:
    """The line on which each begins, and the fields of its words."""
    sentence: list[list[str]] = []
    start = 0
    for number, raw in enumerate(lines, 1):
        line = raw.removeprefix("\ufeff").rstrip("\r\n")
        if not line.strip() or line.split()[0] == "-DOCSTART-":
            if sentence:
                yield start, sentence
            sentence = []
            continue
        if universal and line.startswith("#"):
            continue
        fields = line.split("\t") if "\t" in line.strip() else line.split()
        if universal and not fields[0].isdigit():
            continue
        if not sentence:
            start = number
        sentence.append([field.strip() for field in fields])
    if sentence:
        yield start, sentence
