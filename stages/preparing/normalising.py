"""The one form in which the project compares, stores and tokenizes texts and labels."""

from __future__ import annotations

import re
import unicodedata

_REMOVED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")


def normalise(text: str) -> str:
    """Unicode NFC, without control characters, white space as single spaces, none at the ends.

    Removed are category Cc and the zero-width no-break space (a stray byte order mark). Controls
    that are white space (tab, line ends, vertical tab, form feed, NEL) become a space.
    """
    if not text.isprintable():  # true of every text that holds one of them
        text = _REMOVED.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def normalised(values: list[str]) -> list[str]:
    """Each of many texts; where they are few different ones, each of these once."""
    if len(set(values)) > len(values) // 10:
        return [normalise(value) for value in values]
    known = {value: normalise(value) for value in set(values)}
    return [known[value] for value in values]
