"""Words of a text, tags of words, and the entities that tags spell.

A span is (label, first word, word after the last).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

Span = tuple[str, int, int]

OUTSIDE = "O"
SCHEMES = ("iob1", "iob2", "bioes", "io")
# Scripts that put no spaces between words: each of their characters is a word.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)


def words(text: str) -> list[tuple[int, int]]:
    """Where words are, by characters: runs of letters, digits and their marks, and every other
    character that is no white space by itself."""
    found: list[tuple[int, int]] = []
    runs = False  # may the word before go on?
    for i, letter in enumerate(text):
        kind = unicodedata.category(letter)[0]
        if letter.isspace() or kind == "C":
            runs = False
            continue
        if kind == "M" and found and found[-1][1] == i:  # a mark belongs to what it is set on
            found[-1] = (found[-1][0], i + 1)
            continue
        is_run = kind in "LNM" and not _UNSPACED.match(letter)
        if is_run and runs and found[-1][1] == i:
            found[-1] = (found[-1][0], i + 1)
        else:
            found.append((i, i + 1))
        runs = is_run
    return found


def entities(tags: Sequence[str]) -> list[Span]:
    """The spans that tags spell, by the rules of the CoNLL shared tasks' conlleval, which make the
    best of tags that fit no scheme; they hold for IOB1, IOB2 and BIOES alike."""
    found: list[Span] = []
    before, label, start = OUTSIDE, "", 0
    for i, tag in enumerate([*tags, OUTSIDE]):
        mark, _, of = tag.partition("-")
        same = of == label
        ends = before != OUTSIDE and (before in "ES" or mark in "BSO" or not same)
        begins = mark in "BS" or (mark != OUTSIDE and (before in "ESO" or not same))
        if ends:
            found.append((label, start, i))
        if begins:
            start = i
        before, label = mark, of
    return found


def spans(tags: Sequence[str], scheme: str) -> list[Span]:
    """The spans that the tags of a scheme spell. In IO a tag may be the label alone.

    Raises:
        ValueError: they break the scheme's rules: which tag, and why.
    """
    if scheme == "io":
        tags = [tag if tag == OUTSIDE or tag[:2] == "I-" else f"I-{tag}" for tag in tags]
    before, label = OUTSIDE, ""
    for i, tag in enumerate([*tags, OUTSIDE]):
        mark, _, of = tag.partition("-")
        if tag != OUTSIDE and (not of or mark not in _MARKS[scheme]):
            known = ", ".join(f"{one}-" for one in _MARKS[scheme])
            raise ValueError(f"tag {tag!r} of word {i + 1} is none of {scheme} (O, {known})")
        inside = mark in "IE"
        open_ = before in "BI" and before != OUTSIDE
        if scheme in ("iob2", "bioes") and inside and not (open_ and of == label):
            raise ValueError(f"tag {tag!r} of word {i + 1} goes on with no entity, in {scheme}")
        if scheme == "bioes" and open_ and not inside:
            raise ValueError(f"the entity before word {i + 1} is not ended, in bioes")
        before, label = mark, of
    return entities(tags)


_MARKS = {"iob1": "BI", "iob2": "BI", "bioes": "BIES", "io": "I"}


def iob2(found: Sequence[Span], count: int) -> list[str]:
    """The tags in IOB2 of so many words."""
    tags = [OUTSIDE] * count
    for label, start, end in found:
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return tags
