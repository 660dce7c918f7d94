"""Token ids of every row, from the base's own fast tokenizer straight to Arrow on disk.

Run: `python -m stages tokenize`, or `dvc repro`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stages import artifacts, windows
from stages.artifacts import (
    read_json,
    read_parquet,
    replacing_folder,
    write_arrow,
    write_json,
)
from stages.common import prompts
from stages.common.texts import present
from stages.errors import UserError
from stages.params import Run, Section
from stages.pins import versions
from stages.words import DisprovedError, Rule, Words, direct, replaced, rows_of, rule

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from tokenizers import Tokenizer

LIBRARIES = ("tokenizers", "pyarrow", "pandas", "jinja2")
CHAT = Path("data/chat.json")
SPLITS = ("train", "validation", "test")
CHUNK = 20_000  # rows encoded at a time; bounds the memory that encodings take


class Tokenize(Section):
    max_length: int = Field(ge=8, description="tokens a row, special tokens included")
    max_truncated: float = Field(ge=0, le=1, description="share of rows that may be cut")
    stride: int = Field(
        default=32, ge=0, description="tokens that a window of a long text shares with the next"
    )
    chat_template: Literal["auto", "plain"] = Field(
        default="auto", description="auto: the base's own where it has one"
    )


def run(params: Tokenize, run: Run) -> dict[str, object]:
    """Write data/tokenized/<split>.arrow (columns input_ids, target) and results/tokens.json.

    Raises:
        UserError: more than `max_truncated` of the rows of a split are longer than
            `max_length`.
    """
    tokenizer = load_tokenizer(Path("data/base/tokenizer.json"))
    labels = read_json("data/prepared/labels.json")
    chat = read_json(CHAT) if run.task.GENERATIVE else None
    if chat:
        refuse_encoders(chat, run.task_name)
    parted = None if chat else rule(tokenizer)
    try:
        counts = _write(tokenizer, params, run, labels, parted, chat)
    except DisprovedError:
        parted = None
        counts = _write(tokenizer, params, run, labels, parted, chat)
    write_json(
        "results/tokens.json",
        {
            "max_length": params.max_length,
            "splits": counts,
            **(_told(tokenizer, params, chat) if chat else {}),
            "parameters": params.model_dump(mode="json"),
            "libraries": versions(LIBRARIES),
        },
    )
    rows = sum(count["rows"] for count in counts.values())
    return {"rows": rows, "looked_up": "word by word" if parted else "not"}


def _write(
    tokenizer: Tokenizer,
    params: Tokenize,
    run: Run,
    labels: list[str],
    parted: Rule | None,
    chat: dict[str, Any] | None,
) -> dict[str, dict[str, Any]]:
    """The splits, and counts of each; `chat` is data/chat.json, of a generative task."""
    counts = {}
    with replacing_folder("data/tokenized") as folder:
        for split in SPLITS:
            rows = read_parquet(f"data/prepared/{split}.parquet")
            if chat:
                table, counts[split] = spoken(tokenizer, rows, params, run.task, chat)
            elif run.task.WINDOWED:
                table, counts[split] = windowed(tokenizer, rows, params, run.task, labels)
            else:
                table, counts[split] = encode(
                    tokenizer, rows, params.max_length, run, labels, parted
                )
            write_arrow(folder / f"{split}.arrow", table)
        _refuse_truncation(counts, params)
    return counts


def load_tokenizer(path: Path) -> Tokenizer:
    """The base's tokenizer, without the padding and truncation that its file may switch on."""
    from tokenizers import Tokenizer

    if not path.exists():
        raise UserError(f"{path}: missing; run `dvc repro` to make it")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode(
    tokenizer: Tokenizer,
    rows: pd.DataFrame,
    max_length: int,
    run: Run,
    labels: list[str],
    parted: Rule | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """Token ids (list of int32) and targets of all rows, of pairs also `first`, the tokens that
    belong to the first text; and what was cut.

    A row longer than `max_length` is cut by the tokenizer itself, which keeps the special
    tokens.

    Args:
        parted: how to look words up; None: texts are tokenized as they are.

    Raises:
        DisprovedError: their words have other ids.
    """
    import pyarrow as pa

    roles = present(run.task.TEXTS, rows.columns)
    columns = [pa.array(rows[role], pa.string()) for role in roles]
    words = Words(tokenizer, parted, len(columns)) if parted else None
    full, kept, tokens = [], [], []
    first: list[int] = []
    for start in range(0, len(rows), CHUNK):
        chunk = [column.slice(start, CHUNK) for column in columns]
        ids, lengths = words.ids(chunk) if words else direct(tokenizer, rows_of(chunk))
        full.append(lengths)
        long = np.flatnonzero(lengths > max_length)
        if len(long):
            tokenizer.enable_truncation(max_length)
            cut = direct(tokenizer, rows_of(chunk, long))
            tokenizer.no_truncation()
            ids, lengths = replaced(ids, lengths, long, *cut)
        tokens.append(ids)
        kept.append(lengths)
        if len(roles) > 1:
            first += firsts_of(tokenizer, rows_of(chunk), max_length)
    joined = [np.concatenate([np.empty(0, of[0].dtype), *of]) for of in (tokens, full, kept)]
    offsets = np.concatenate([[0], np.cumsum(joined[2])])
    found = {
        "input_ids": pa.LargeListArray.from_arrays(offsets, joined[0]),
        "target": artifacts.column(run.task.targets(rows, labels)),
    }
    if len(roles) > 1:
        found["first"] = pa.array(first, pa.int32())
    return pa.table(found), _counts(joined[1], joined[2], joined[0], _unknown_id(tokenizer))


def windowed(
    tokenizer: Tokenizer, rows: pd.DataFrame, params: Tokenize, task: Any, labels: list[str]
) -> tuple[pa.Table, dict[str, Any]]:
    """The windows of all rows, with their columns `row` and those of the task, and counts of them:
    nothing is cut."""
    import pyarrow as pa

    roles = present(task.TEXTS, rows.columns)
    texts = rows[roles].to_numpy().tolist()
    found = windows.make(tokenizer, texts, params.max_length, params.stride)
    more, reached = task.align(rows, labels, found)
    columns = {
        "input_ids": pa.LargeListArray.from_arrays(found.offsets, found.ids),
        "row": pa.array(found.row),
        "target": artifacts.column(task.targets(rows, labels)[found.row]),
        **({"first": pa.array(found.first)} if len(roles) > 1 else {}),
        **more,
    }
    first = np.diff(found.row, prepend=-1) > 0
    sizes = np.add.reduceat(found.own.astype(np.int64), found.offsets[:-1])
    outside = np.diff(found.offsets) - np.add.reduceat(
        (found.spans[:, 1] > 0).astype(np.int64), found.offsets[:-1]
    )
    lengths = np.bincount(found.row, sizes + outside * first).astype(np.int64)
    counts = _counts(lengths, lengths, found.ids, _unknown_id(tokenizer))
    return pa.table(columns), counts | {"windows": len(found.row)} | reached


def _told(tokenizer: Tokenizer, params: Tokenize, chat: dict[str, Any]) -> dict[str, Any]:
    """The chat template that prompts are written by, and the token that ends a response."""
    return {
        "template": prompts.template_of(params.chat_template, chat),
        "end": tokenizer.token_to_id(chat["eos_token"]),
    }


def refuse_encoders(chat: dict[str, Any], task: str) -> None:
    """
    Args:
        chat: data/chat.json.

    Raises:
        UserError: the base is no causal language model.
    """
    if not chat["causal"]:
        raise UserError(
            "params.yaml: run.task: needs a causal language model, which the base is not by its "
            f"config.json (architectures), got {task!r}; name another base in fetch_model, such as "
            "a GPT-2 or a Llama"
        )


def spoken(
    tokenizer: Tokenizer, rows: pd.DataFrame, params: Tokenize, task: Any, chat: dict[str, Any]
) -> tuple[pa.Table, dict[str, Any]]:
    """Prompts with their responses, and counts of what was cut of either.

    Args:
        chat: data/chat.json.
    """
    import pyarrow as pa

    template = prompts.template_of(params.chat_template, chat)
    found = prompts.make(tokenizer, rows, params.max_length, template, chat)
    columns = found.columns() | {"target": artifacts.column(task.targets(rows, []))}
    counts = _counts(found.full, np.diff(found.offsets), found.ids, _unknown_id(tokenizer))
    return pa.table(columns), counts | found.counts


def ids_of(tokenizer: Tokenizer, texts: list[list[str]]) -> list[list[int]]:
    """Token ids of each row; a row is one text, or a pair."""
    single = [text[0] if len(text) == 1 else tuple(text) for text in texts]
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(single)]


def firsts_of(tokenizer: Tokenizer, pairs: list[list[str]], max_length: int) -> list[int]:
    """Tokens of each pair, cut to `max_length`, that are of type 0: up to the end of its first
    text, or all where the tokenizer does not tell the two apart.

    Raises:
        UserError: the tokenizer knows other types, or mixes them.
    """
    tokenizer.enable_truncation(max_length)
    types = [one.type_ids for one in tokenizer.encode_batch_fast([tuple(pair) for pair in pairs])]
    tokenizer.no_truncation()
    if any(row != [0] * row.count(0) + [1] * row.count(1) for row in types):
        raise UserError(
            "tokenizer.json of the base: marks the tokens of a pair otherwise than by 0 for the "
            "first text and then 1 for the second; pairs need another base"
        )
    return [row.count(0) for row in types]


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    token = json.loads(tokenizer.to_str())["model"].get("unk_token")
    return tokenizer.token_to_id(token) if isinstance(token, str) else None


def _counts(
    full: np.ndarray, kept: np.ndarray, tokens: np.ndarray, unknown: int | None
) -> dict[str, Any]:
    quantiles = np.quantile(full, [0.5, 0.9, 0.99, 1.0], method="higher").tolist()
    return {
        "rows": len(full),
        "tokens": int(full.sum()),
        "truncated_rows": int((full > kept).sum()),
        "truncated_tokens": int((full - kept).sum()),
        "unknown_tokens": 0 if unknown is None else int((tokens == unknown).sum()),
        "length": dict(zip(("p50", "p90", "p99", "max"), quantiles, strict=True)),
    }


def _refuse_truncation(counts: dict[str, dict[str, Any]], params: Tokenize) -> None:
    found = []
    for split, count in counts.items():
        share = count["truncated_rows"] / count["rows"]
        if share > params.max_truncated:
            what, length = f"the {count['rows']} {split} rows", count["length"]
            found.append(too_long(what, share, params.max_length, length["p99"], length["max"]))
    if found:
        raise UserError(*found)


def too_long(
    what: str, share: float, max_length: int, most: int, longest: int, room: int | None = None
) -> str:
    """What is wrong where a share of rows is cut, and what to do.

    Args:
        what: the rows.
        most: tokens that 99% of them have at most.
        room: tokens that the base has positions for; None: not known, or no limit.
    """
    allowed = f"tokenize.max_truncated to {min(1.0, math.ceil(100 * share) / 100):.2f}"
    if room is None or most <= room:
        remedy = (
            f"write {most} to keep 99% of them whole (the longest has {longest} tokens), or raise "
            f"{allowed}"
        )
    elif room > max_length:
        remedy = (
            f"write {room}, which is all that the base reads (99% have up to {most} tokens), and "
            "raise tokenize.max_truncated as far as that then wants, or part the texts"
        )
    else:
        remedy = (
            f"the base reads no more (99% have up to {most} tokens): raise {allowed}, or part the "
            "texts"
        )
    return (
        f"params.yaml: tokenize.max_length: {share:.1%} of {what} are longer, got {max_length}; "
        f"{remedy}"
    )
