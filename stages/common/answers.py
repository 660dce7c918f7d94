"""Answers that are pieces of a text: how two are compared, by the rules of SQuAD's own script
(Rajpurkar et al., "SQuAD", 2016, and "Know What You Don't Know", 2018)."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from stages.common.tagging import UNSPACED

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain(answer: str) -> str:
    """In lower case, without ASCII punctuation, without English articles, with single spaces. Where
    a script without spaces occurs, without any other punctuation either (as in "MLQA")."""
    found = answer.lower().translate(_PUNCTUATION)
    if UNSPACED.search(found):
        found = "".join(letter for letter in found if unicodedata.category(letter)[0] != "P")
    return " ".join(_ARTICLES.sub(" ", found).split())


def words(answer: str) -> list[str]:
    """What the F1 counts: the words between spaces; in scripts that put none between words, which
    SQuAD does not have, each character (as in Lewis et al., "MLQA", 2020, for Chinese)."""
    return UNSPACED.sub(r" \g<0> ", plain(answer)).split()


def exact(given: str, references: Sequence[str]) -> float:
    """1 where the answer is one of the references; none at all is the empty answer."""
    return float(plain(given) in {plain(one) for one in _references(references)})


def f1(given: str, references: Sequence[str]) -> float:
    """The highest F1 of the words in common with a reference. Where either is empty, 1 if both
    are, else 0."""
    return max(_f1(words(given), words(one)) for one in _references(references))


def _references(references: Sequence[str]) -> Sequence[str]:
    """Those of which something is left; none is the empty answer."""
    return [one for one in references if plain(one)] or [""]


def _f1(given: list[str], true: list[str]) -> float:
    if not given or not true:
        return float(given == true)
    same = sum((Counter(given) & Counter(true)).values())
    return 2 * same / (len(given) + len(true))
