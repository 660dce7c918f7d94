"""Answers of an exported model, as JSON lines: one for each text, in order.

    python -m stages predict "A text" "Another"
    python -m stages predict --file texts.txt        one text a line, UTF-8
    python -m stages predict --file rows.jsonl       the key `text` of the object on each line, and
                                                     `text_pair` of a model of pairs; of a model
                                                     that answers `prompt`, `messages`, or
                                                     `instruction` and perhaps `input`
    some-command | python -m stages predict          standard input, one text a line

Each line holds `text` (of a model that answers `prompt`: all that was said, where there were
`messages`), the answer as the task gives it (such as `label` and `probabilities`) and
`truncated` (whether the text was longer than the model reads). A line that holds no text gets null
for the answer and a `reason`, so that every line of the input has its line in the output. Reads
nothing but the exported folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from stages import plugins, tokenize
from stages.common import chat
from stages.errors import UserError
from stages.exporting import inference
from stages.preparing.normalising import normalise

BATCH = 32
OBJECTS = (".jsonl", ".ndjson", ".json")
TABLES = (".csv", ".tsv", ".parquet", ".xlsx")


@dataclass(frozen=True)
class Text:
    """One line of the input: the task's texts as read, or why there are none; of a model that
    answers also `messages`, where the line had some."""

    texts: dict[str, str]
    reason: str = ""


def main(arguments: list[str]) -> int:
    """Print the answers; exit code 0, also where the reader of the output has seen enough."""
    chosen = _parser().parse_args(arguments)
    if chosen.file and chosen.text:
        raise UserError(
            f"python -m stages predict: texts and --file, got {chosen.text[0]!r} and "
            f"{chosen.file!r}; give one of them"
        )
    try:
        _predict(chosen)
    except BrokenPipeError:  # such as of `| head -1`
        # Python flushes standard output once more when it ends, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("text", nargs="*", help="texts; without any, --file or standard input")
    parser.add_argument("--file", help="a file of texts, by its ending .jsonl of objects")
    parser.add_argument("--model", default="models/export", help="default: %(default)s")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=BATCH,
        help="lines answered at a time (default: %(default)s); 1 answers a live stream at once",
    )
    return parser


def _predict(chosen: argparse.Namespace) -> None:
    if chosen.batch_size < 1:
        raise UserError(
            f"python -m stages predict: --batch-size: got {chosen.batch_size}; write 1 or more"
        )
    if chosen.file and (ending := Path(chosen.file).suffix.lower()) in TABLES:
        raise UserError(
            f"python -m stages predict: --file: tables are not read, got {ending!r}; write one "
            f"object a line with the keys of its columns, as {Path(chosen.file).stem}.jsonl"
        )
    out, in_terminal = sys.stdout.buffer, sys.stdin.isatty() and not (chosen.text or chosen.file)
    source = _open(chosen.file) if chosen.file else nullcontext(sys.stdin.buffer)
    with source as file:  # before the model is loaded, which takes seconds
        model = inference.load(chosen.model)
        task = plugins.load("tasks", model.task)
        as_json = bool(chosen.file) and Path(chosen.file).suffix.lower() in OBJECTS
        given: Iterable[bytes] = (text.encode(errors="surrogateescape") for text in chosen.text)
        lines = _read(given if chosen.text else file, model.texts, as_json, _request(model, task))
        size = 1 if in_terminal else chosen.batch_size
        if in_terminal:
            print("one text a line, Ctrl-D ends:", file=sys.stderr)
        while batch := list(islice(lines, size)):
            for answer in answers(model, task, batch):
                out.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
            out.flush()


def answers(model: inference.Exported, task: Any, batch: list[Text]) -> list[dict[str, Any]]:
    """One object for each line of the batch."""
    form = chat.clean if task.GENERATIVE else normalise
    clean = [{role: form(line.texts.get(role, "")) for role in model.texts} for line in batch]
    spoken = task.GENERATIVE and not _completes(model)
    reasons = [
        line.reason
        or next((f"no {role}" for role, text in texts.items() if not text), "")
        or (model.refusal(_messages(line, texts, task)) if spoken else "")
        for line, texts in zip(batch, clean, strict=True)
    ]
    usable = [
        texts | {"messages": line.texts.get("messages", "")} if task.GENERATIVE else texts
        for line, texts, reason in zip(batch, clean, reasons, strict=True)
        if not reason
    ]
    found: Iterator[dict[str, Any]] = iter(())
    cut: Iterator[bool] = iter(())
    if usable:
        raw = {role: [texts[role] for texts in usable] for role in usable[0]}
        way = _written if task.GENERATIVE else _in_windows if task.WINDOWED else _cut
        known, truncated = way(model, task, raw)
        found, cut = iter(known), iter(truncated)
    read = [
        {role: line.texts[role] for role in model.texts if role in line.texts} for line in batch
    ]
    return [
        {**texts, task.TARGET: None, "reason": reason}
        if reason
        else {**texts, **next(found), "truncated": next(cut)}
        for texts, reason in zip(read, reasons, strict=True)
    ]


def _messages(line: Text, clean: dict[str, str], task: Any) -> str:
    """What the model is asked, as a conversation in JSON."""
    asked = {role: [text] for role, text in clean.items()}
    asked["messages"] = [line.texts.get("messages", "")]
    (found,) = task.ask(asked, [])["messages"]
    return str(found)


def _cut(
    model: inference.Exported, task: Any, raw: dict[str, list[str]]
) -> tuple[list[dict[str, Any]], list[bool]]:
    """Answers, and which texts were cut."""
    logits, truncated = model.logits([list(of) for of in zip(*raw.values(), strict=True)])
    rows = pd.DataFrame(raw)
    return task.answers(np.stack(logits), None, model.labels, model.learnt, rows), truncated


def _in_windows(
    model: inference.Exported, task: Any, raw: dict[str, list[str]]
) -> tuple[list[dict[str, Any]], list[bool]]:
    """Answers, and that no text was cut."""
    from stages.training.predicting import predict

    rows = pd.DataFrame(task.ask(raw, model.labels))
    params = tokenize.Tokenize(max_length=model.max_length, max_truncated=1.0, stride=model.stride)
    tokenizer = tokenize.load_tokenizer(Path(model.folder) / "tokenizer.json")
    table, _ = tokenize.windowed(tokenizer, rows, params, task, model.labels)
    logits = predict(model.model, table, BATCH, model.device, task)
    found = task.answers(logits, table, model.labels, model.learnt, rows)
    return found, [False] * len(rows)


def _written(
    model: inference.Exported, task: Any, raw: dict[str, list[str]]
) -> tuple[list[dict[str, Any]], list[bool]]:
    """Answers that the model writes, and whose prompts were cut."""
    from stages.training import generating

    rows = pd.DataFrame(task.ask(raw, model.labels))
    if _completes(model):
        rows["messages"] = ""  # first words to go on with, no request
    examples = model.examples(rows)
    table = pa.table(examples.columns())
    decoding = generating.Decoding(**model.model.config.finetuning_decoding)
    found = generating.write(model.model, table, decoding, BATCH, model.device)
    rows["predicted"] = generating.texts(found, model.tokenizer.backend_tokenizer)
    cut = examples.full > np.diff(examples.offsets)
    known = task.answers(np.empty(0), None, model.labels, model.learnt, rows)
    return known, cut.tolist()


def _open(path: str) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); name a file of one text a line"
        ) from None


def _completes(model: inference.Exported) -> bool:
    """Does the model go on with plain texts, rather than answer what it is asked?"""
    return bool(getattr(model.model.config, "finetuning_completes", False))


Request = Callable[[Mapping[str, Any]], dict[str, str]]


def _request(model: inference.Exported, task: Any) -> Request:
    """How the texts are read from an object; a ValueError says why there are none."""
    if task.GENERATIVE and not _completes(model):
        found: Request = task.request
        return found

    def texts(value: Mapping[str, Any]) -> dict[str, str]:
        known = {role: value[role] for role in model.texts if isinstance(value.get(role), str)}
        missing = next((role for role in model.texts if role not in known), None)
        if missing:
            raise ValueError(f"no key {missing!r} that holds a text")
        return known

    return texts


def _read(
    lines: Iterable[bytes], roles: list[str], as_json: bool, request: Request
) -> Iterator[Text]:
    """A `Text` for each line, none left out. Memory is bounded by the longest line."""
    if len(roles) > 1 and not as_json:
        raise UserError(
            f"python -m stages predict: this model reads {' and '.join(roles)}; give them as "
            "--file with the ending .jsonl, an object with these keys on each line"
        )
    for raw in lines:
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        try:
            text = line.decode().removeprefix("\ufeff")
        except UnicodeDecodeError:
            shown = line.decode(errors="replace")
            yield Text({} if as_json else {roles[0]: shown}, "undecodable bytes: not UTF-8")
            continue
        yield _object(text, roles, request) if as_json else Text({roles[0]: text})


def _object(line: str, roles: list[str], request: Request) -> Text:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return Text({}, "not JSON" if line.strip() else f"no {roles[0]}")
    if not isinstance(value, dict):
        return Text({}, "not JSON: no object in braces")
    try:
        texts = request(value)
    except ValueError as error:
        return Text({role: value[role] for role in roles if _is_text(value.get(role))}, str(error))
    if not all(map(_is_text, texts.values())):
        return Text({}, "half of a surrogate pair, which is no text")
    return Text(texts)


def _is_text(value: Any) -> bool:
    """A string that UTF-8 can hold."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)
