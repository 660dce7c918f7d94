"""Texts longer than a model reads, parted into windows that overlap, so that nothing is cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


CHUNK = 1000  # rows encoded at a time; bounds the memory that encodings take


@dataclass(frozen=True)
class Windows:
    """The examples of rows; tokens are those of all windows, one after the other.

    row [n]: whose window it is. offsets [n + 1]: where its tokens begin. ids [tokens].
    spans [tokens, 2]: the characters of the last text that a token stands for; those of special
    tokens and of other texts are (0, 0). own [tokens]: is the token of the last text, and is this
    the window that it counts in? Of the windows that share a token it is the one where most stands
    around it. first [n]: tokens of type 0.
    """

    row: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray
    spans: np.ndarray
    own: np.ndarray
    first: np.ndarray


def make(tokenizer: Tokenizer, texts: list[list[str]], max_length: int, stride: int) -> Windows:
    """The windows of rows, in their order.

    Args:
        texts: of each row one text, or two of which the second is parted.
        max_length: tokens of a window, at most.
        stride: tokens of the text that a window shares with the next.

    Raises:
        UserError: what stands in each window leaves no room for the text.
    """
    row, ids, spans, own, first, lengths = [], [], [], [], [], []
    for number, encoding in enumerate(_encoded(tokenizer, texts)):
        begin, end = _text(encoding, len(texts[number]) - 1)
        room = max_length - (len(encoding.ids) - (end - begin))
        if room <= stride and end - begin > room:
            raise UserError(
                f"params.yaml: tokenize.max_length: {max_length - max(room, 0)} tokens of a row "
                f"stand in each of its windows, so that {max(room, 0)} are left for the text, got "
                f"{max_length}; write more than {max_length - room + stride}, or a lower "
                "tokenize.stride"
            )
        all_ids, all_types = np.array(encoding.ids), np.array(encoding.type_ids)
        all_spans = np.array(encoding.offsets).reshape(-1, 2)
        for start, stop, mine, not_mine in _parts(end - begin, room, stride):
            inner = np.arange(begin + start, begin + stop)
            taken = np.concatenate([np.arange(begin), inner, np.arange(end, len(all_ids))])
            in_text = (taken >= begin) & (taken < end)
            row.append(number)
            ids.append(all_ids[taken])
            spans.append(np.where(in_text[:, None], all_spans[taken], 0))
            own.append((taken >= begin + mine) & (taken < begin + not_mine))
            first.append(_first(all_types[taken]))
            lengths.append(len(taken))
    return Windows(
        np.array(row, dtype=np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([np.empty(0, np.int64), *ids]).astype(np.int32),
        np.concatenate([np.empty((0, 2), np.int64), *spans]).astype(np.int32),
        np.concatenate([np.empty(0, bool), *own]),
        np.array(first, dtype=np.int32),
    )


def _encoded(tokenizer: Tokenizer, texts: list[list[str]]) -> Iterator[Encoding]:
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        yield from tokenizer.encode_batch(
            [one[0] if len(one) == 1 else tuple(one) for one in chunk]
        )


def _text(encoding: Encoding, text: int) -> tuple[int, int]:
    """Where the tokens of a text begin and end; where it has none, before the last token."""
    of = np.array([-1 if one is None else one for one in encoding.sequence_ids])
    places = np.flatnonzero(of == text)
    if not len(places):
        return max(len(of) - 1, 0), max(len(of) - 1, 0)
    return int(places[0]), int(places[-1]) + 1


def _parts(count: int, room: int, stride: int) -> list[tuple[int, int, int, int]]:
    """Of the windows of so many tokens: first token and the one after the last, and of those that
    count in it as well. A token in two windows counts in the first for the first half of what they
    share."""
    starts = (
        [0, *range(room - stride, max(count - stride, 0), room - stride)] if count > room else [0]
    )
    shared = stride // 2
    parts = []
    for i, start in enumerate(starts):
        stop = min(start + room, count)
        mine = start + shared if i else 0
        last = i + 1 == len(starts)
        parts.append((start, stop, mine, count if last else starts[i + 1] + shared))
    return parts


def _first(types: np.ndarray) -> int:
    count = int((types == 0).sum())
    if types[:count].any() or (types[count:] != 1).any():
        raise UserError(
            "tokenizer.json of the base: marks the tokens of a pair otherwise than by 0 for the "
            "first text and then 1 for the second; pairs need another base"
        )
    return count
