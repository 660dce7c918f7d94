"""Prompts with their responses as the tokens of examples.

An example is the prompt's tokens, the response's and the token that ends it. Of each token `goal`
is the one that follows it where that one is to be learnt, else -100: so prompts bear no loss, and
padding has no goal whatever its number is. A plain text, which nobody asks for, is learnt whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.common import chat
from stages.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from tokenizers import Tokenizer

NO_GOAL = -100
CHUNK = 2000  # rows encoded at a time; bounds the memory that encodings take


@dataclass(frozen=True)
class Examples:
    """Of n rows, without padding, one after the other.

    ids, goal [tokens]; offsets [n + 1]: where each begins; prompt [n]: tokens of its prompt;
    bytes [n]: of the text that its goals stand for; full [n]: tokens before anything was cut;
    end: the token that ends a response. counts: what became of tokens and rows.
    """

    ids: np.ndarray
    goal: np.ndarray
    offsets: np.ndarray
    prompt: np.ndarray
    bytes: np.ndarray
    full: np.ndarray
    end: int
    counts: dict[str, int]

    def columns(self) -> dict[str, Any]:
        """Those of the table that `tokenize` writes, beside `target`."""
        import pyarrow as pa

        return {
            "input_ids": pa.LargeListArray.from_arrays(self.offsets, self.ids),
            "goal": pa.LargeListArray.from_arrays(self.offsets, self.goal),
            "prompt": pa.array(self.prompt),
            "bytes": pa.array(self.bytes),
            "end": pa.array(np.full(len(self.prompt), self.end, dtype=np.int32)),
        }


def template_of(choice: str, about: Mapping[str, Any]) -> str:
    """The chat template to use.

    Args:
        choice: auto: the base's own where it has one; plain.
        about: data/chat.json.
    """
    own = about.get("template")
    return str(own) if choice == "auto" and own else chat.PLAIN


def make(
    tokenizer: Tokenizer,
    rows: pd.DataFrame,
    max_length: int,
    template: str,
    special: Mapping[str, str | None],
) -> Examples:
    """The examples of rows, in their order. Of one longer than `max_length` the prompt loses its
    first tokens, but for the last; a response that is longer even so loses its own last ones.

    Args:
        rows: columns prompt, response, and messages, as `stages/tasks/generation.py` reads them.
        special: data/chat.json: `bos_token` and `eos_token`.

    Raises:
        UserError: the base names no token that ends a text.
    """
    end = None if special["eos_token"] is None else tokenizer.token_to_id(special["eos_token"])
    if end is None:
        raise UserError(
            "tokenizer_config.json of the base: eos_token: missing, or not in the vocabulary, got "
            f"{special['eos_token']!r}; name there the token that ends a text"
        )
    parts: list[tuple[np.ndarray, np.ndarray, int, int]] = []
    full, counts = [], dict.fromkeys(_COUNTS, 0)
    for asked, answered, plain in _encoded(tokenizer, rows, template, special):
        prompt, response = asked, [*answered, end]
        full.append(len(prompt) + len(response))
        room = max(max_length - len(response), 1)
        prompt = prompt[-room:]
        response = response[: max_length - len(prompt)]
        begin = 1 if plain else len(prompt)
        ids = np.array([*prompt, *response], dtype=np.int32)
        goal = np.full(len(ids), NO_GOAL, dtype=np.int32)
        goal[begin - 1 : -1] = ids[begin:]
        meant = full[-1] - (1 if plain else len(asked))
        learnt = int((goal != NO_GOAL).sum())
        counts["target_tokens"] += meant
        counts["learnt_tokens"] += learnt
        counts["cut_target_tokens"] += meant - learnt
        counts["cut_prompts"] += len(prompt) < len(asked)
        counts["cut_responses"] += len(response) <= len(answered)
        text = tokenizer.decode(ids[begin:].tolist(), skip_special_tokens=True)
        parts.append((ids, goal, len(prompt), len(text.encode())))
    lengths = [len(ids) for ids, *_ in parts]
    return Examples(
        ids=np.concatenate([np.empty(0, np.int32), *(ids for ids, *_ in parts)]),
        goal=np.concatenate([np.empty(0, np.int32), *(goal for _, goal, *_ in parts)]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        prompt=np.array([count for *_, count, _ in parts], dtype=np.int32),
        bytes=np.array([size for *_, size in parts], dtype=np.int32),
        full=np.array(full, dtype=np.int64),
        end=end,
        counts=counts,
    )


_COUNTS = (
    "target_tokens", "learnt_tokens", "cut_target_tokens", "cut_prompts", "cut_responses",
)  # fmt: skip


def _encoded(
    tokenizer: Tokenizer, rows: pd.DataFrame, template: str, special: Mapping[str, str | None]
) -> Any:
    """Tokens of each prompt and of its response, and whether it is a plain text."""
    for start in range(0, len(rows), CHUNK):
        part = rows.iloc[start : start + CHUNK]
        asked, answered = [], []
        columns = (part["prompt"], part["response"], part["messages"])
        for prompt, response, written in zip(*columns, strict=True):
            if not written:
                asked.append(f"{special.get('bos_token') or ''}{prompt}")
                answered.append(response)
                continue
            messages = json.loads(written)
            try:
                asked.append(chat.render(template, messages, special, prompting=True))
                answered.append(chat.answer(template, messages, response, special))
            except chat.TemplateRefusedError as error:
                raise _named(error, part.iloc[len(answered)]) from None
        pairs = zip(
            tokenizer.encode_batch_fast(asked, add_special_tokens=False),
            tokenizer.encode_batch_fast(answered, add_special_tokens=False),
            part["messages"],
            strict=True,
        )
        for one, other, written in pairs:
            yield one.ids or [_begin(tokenizer, special)], other.ids, not written


def _named(error: chat.TemplateRefusedError, row: pd.Series) -> UserError:
    """The refusal with the row's place, where it has one."""
    if "line" not in row:
        return error
    return UserError(f"{row.get('file', '')}, line {row['line']}: {error}")


def _begin(tokenizer: Tokenizer, special: Mapping[str, str | None]) -> int:
    """What stands before a response whose prompt has no token."""
    for name in ("bos_token", "eos_token"):
        token = special.get(name)
        if token is not None and (number := tokenizer.token_to_id(token)) is not None:
            return int(number)
    raise AssertionError("make asks for eos_token")
