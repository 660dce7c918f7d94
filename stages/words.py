"""Token ids of texts, looked up word by word where that is exact for the tokenizer at hand.

Most words of a text were met before, so their ids are looked up instead of computed. That is
exact only where no step of the tokenizer looks across a space; `rule` proves it by the steps
that tokenizer.json lists, each of which is known here, and otherwise finds none. Every chunk
also compares some rows with the tokenizer's own ids, which holds the proof against the library.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

Rule = Literal["between", "before"]
"""What a space is: a mark between two words, or the first character of the word after it."""

BLANK = "[\t\n\r]"
# These treat each character alone, or together with combining marks, which no space is.
NORMALIZERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents"}
SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}  # drop what is white
INNER = {"Digits", "Punctuation"}  # split a word further
MODELS = {"BPE", "Unigram", "WordLevel", "WordPiece"}  # see one word of the splitter at a time
PROCESSORS = {"BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing"}
# White space, or what might be taken for it, other than a single space between two words. GPT-2's
# pattern gives such a space to the word after it, and looks across all others.
IRREGULAR = (
    "^ | $|  |[\x00-\x1f\x7f-\xa0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]"
)
MOST = 1 << 20  # words kept; then the memo begins anew
MOST_IDS = 1 << 23
CHECKED = 16  # rows of a chunk that are compared with the tokenizer's own ids


class DisprovedError(Exception):
    """The tokenizer gives other ids than its words do: a bug of `rule`, or of the library."""


def rule(tokenizer: Tokenizer) -> Rule | None:
    """How texts may be parted, or None where no way is proven."""
    steps = json.loads(tokenizer.to_str())
    model, tokens = steps["model"], steps["added_tokens"]
    known = (
        model["type"] in MODELS
        and not model.get("dropout")
        and all(_inner(tokenizer, token["content"]) for token in tokens)
        and all(step["type"] in NORMALIZERS for step in _flat(steps["normalizer"]))
        and all(step["type"] in PROCESSORS for step in _flat(steps["post_processor"]))
    )
    first, *others = [*_flat(steps["pre_tokenizer"])] or [{"type": ""}]
    if known and first["type"] in SPLITTERS and all(s["type"] in SPLITTERS | INNER for s in others):
        return "between"
    gpt2 = first["type"] == "ByteLevel" and first.get("use_regex", True) and not others
    # A token that takes the white space after it would take that of the next word.
    if known and gpt2 and not any(token["rstrip"] for token in tokens):
        return "before"
    return None


def _flat(step: Any) -> Iterator[dict[str, Any]]:
    """The steps of a sequence, which may hold others."""
    if step is None:
        return
    inner = step.get("normalizers") or step.get("pretokenizers") or step.get("processors")
    if step["type"] != "Sequence":
        yield step
    for one in inner or ():
        yield from _flat(one)


def _inner(tokenizer: Tokenizer, token: str) -> bool:
    """Is an added token found inside one word only, as it stands and as it is normalized?"""
    normalizer = tokenizer.normalizer
    forms = [token, normalizer.normalize_str(token) if normalizer else token]
    return all(form and len(form.split()) == 1 and form == form.strip() for form in forms)


def direct(tokenizer: Tokenizer, texts: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of all rows, one after the other, and how many each row has; int32 and int64.

    Args:
        texts: of a row: one, or a pair.
    """
    rows = [text[0] if len(text) == 1 else tuple(text) for text in texts]
    return _joined([encoding.ids for encoding in tokenizer.encode_batch_fast(rows)])


def rows_of(columns: list[pa.Array], rows: np.ndarray | None = None) -> list[list[str]]:
    """The texts of each row, or of some rows, of so many columns as a row has texts."""
    chosen = columns if rows is None else [column.take(rows) for column in columns]
    return [list(row) for row in zip(*(column.to_pylist() for column in chosen), strict=True)]


def _joined(ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum())), lengths


def spread(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers from each start on, so many as its length says, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


class Words:
    """The ids of the words met so far, each computed by the tokenizer itself, alone."""

    def __init__(self, tokenizer: Tokenizer, rule: Rule, texts: int) -> None:
        """
        Args:
            texts: of a row; 1 or 2.
        """
        self.tokenizer = tokenizer
        self.rule = rule
        self.texts = texts
        self._marks = _marks(tokenizer, texts)
        self._clear()

    def ids(self, columns: list[pa.Array]) -> tuple[np.ndarray, np.ndarray]:
        """As `direct`, of so many columns of text as a row has.

        Raises:
            DisprovedError: a row that was looked at has other ids.
        """
        if len(self._numbers) > MOST or self._size > MOST_IDS:
            self._clear()
        odd = self._odd(columns)
        tokens, lengths = self._regular(columns)
        count = len(lengths)
        looked = np.unique(np.linspace(0, count - 1, min(count, CHECKED)).astype(np.int64))
        looked = looked[~odd[looked]]
        own, sizes = direct(self.tokenizer, rows_of(columns, looked))
        starts = np.cumsum(lengths) - lengths
        found = tokens[spread(starts[looked], lengths[looked])]
        if not (np.array_equal(sizes, lengths[looked]) and np.array_equal(own, found)):
            raise DisprovedError
        rows = np.flatnonzero(odd)
        if not len(rows):
            return tokens, lengths
        return replaced(tokens, lengths, rows, *direct(self.tokenizer, rows_of(columns, rows)))

    def _clear(self) -> None:
        self._numbers: dict[str, int] = {}
        self._size = 0
        self._ids = np.empty(0, np.int32)
        self._starts = np.empty(0, np.int64)
        self._lengths = np.empty(0, np.int64)
        self._add(self._marks)

    def _add(self, ids: list[list[int]]) -> None:
        new, lengths = _joined(ids)
        starts = self._size + np.cumsum(lengths) - lengths
        self._ids = np.concatenate([self._ids, new])
        self._starts = np.concatenate([self._starts, starts])
        self._lengths = np.concatenate([self._lengths, lengths])
        self._size = len(self._ids)

    def _odd(self, columns: list[pa.Array]) -> np.ndarray:
        """Rows that the rule does not cover [n]."""
        import pyarrow.compute as pc

        odd = np.zeros(len(columns[0]), bool)
        if self.rule == "before":
            for column in columns:
                odd |= pc.match_substring_regex(column, IRREGULAR).to_numpy(zero_copy_only=False)
        return odd

    def _regular(self, columns: list[pa.Array]) -> tuple[np.ndarray, np.ndarray]:
        """A row is: mark, words, mark (of a pair: words, mark); a mark holds special tokens."""
        parts = [self._part(column) for column in columns]
        sizes = sum((size for _, size in parts), np.full(len(columns[0]), self.texts + 1))
        numbers = np.empty(int(sizes.sum()), np.int64)
        place = np.cumsum(sizes) - sizes
        for mark, (words, size) in enumerate(parts):
            numbers[place] = mark
            numbers[spread(place + 1, size)] = words
            place = place + 1 + size
        numbers[place] = self.texts
        lengths = self._lengths[numbers]
        tokens = self._ids[spread(self._starts[numbers], lengths)]
        ends = np.concatenate([[0], np.cumsum(lengths)])[np.cumsum(sizes)]
        return tokens, np.diff(ends, prepend=0)

    def _part(self, column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of all words of a column, and how many each row has."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.rule == "between":
            column = pc.replace_substring_regex(column, BLANK, " ")
        split = pc.split_pattern(column, " ")
        sizes = pc.list_value_length(split).to_numpy(zero_copy_only=False).astype(np.int64)
        coded = pc.dictionary_encode(pc.list_flatten(split))
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.combine_chunks()
        codes = coded.indices.to_numpy(zero_copy_only=False)
        found = coded.dictionary.to_pylist()
        if self.rule == "between":
            return self._known(found)[codes], sizes
        first = np.zeros(len(codes), bool)
        first[np.cumsum(sizes) - sizes] = True
        leading, later = np.unique(codes[first]), np.unique(codes[~first])
        numbers = np.empty(len(codes), np.int64)
        for where, which, space in ((first, leading, ""), (~first, later, " ")):
            table = np.zeros(len(found), np.int64)
            table[which] = self._known([space + found[code] for code in which])
            numbers[where] = table[codes[where]]
        return numbers, sizes

    def _known(self, words: list[str]) -> np.ndarray:
        """The number of each word, after those that are new were added."""
        new = [word for word in words if word not in self._numbers]
        if new:
            encodings = self.tokenizer.encode_batch_fast(new, add_special_tokens=False)
            count = len(self._starts)
            self._add([encoding.ids for encoding in encodings])
            self._numbers |= {word: count + n for n, word in enumerate(new)}
        return np.fromiter((self._numbers[word] for word in words), np.int64, len(words))


def _marks(tokenizer: Tokenizer, texts: int) -> list[list[int]]:
    """The special tokens before, between and after the texts of a row, by a row that is known
    without them.

    Raises:
        DisprovedError: it does not hold them, in order and once each.
    """
    words = ["a", "b"][:texts]
    whole = direct(tokenizer, [words])[0].tolist()
    marks, begin = [], 0
    for word in words:
        ids = tokenizer.encode(word, add_special_tokens=False).ids
        places = [n for n in range(begin, len(whole)) if whole[n : n + len(ids)] == ids]
        if len(places) != 1 or not ids:
            raise DisprovedError
        marks.append(whole[begin : places[0]])
        begin = places[0] + len(ids)
    return [*marks, whole[begin:]]


def replaced(
    tokens: np.ndarray, lengths: np.ndarray, rows: np.ndarray, new: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and lengths with the tokens of some rows replaced by others."""
    after = lengths.copy()
    after[rows] = sizes
    starts, kept = np.cumsum(after) - after, np.ones(len(lengths), bool)
    kept[rows] = False
    result = np.empty(int(after.sum()), np.int32)
    before = np.cumsum(lengths) - lengths
    result[spread(starts[kept], after[kept])] = tokens[spread(before[kept], lengths[kept])]
    result[spread(starts[rows], sizes)] = new
    return result, after
