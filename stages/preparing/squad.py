"""SQuAD's JSON: one object that holds articles, their paragraphs, and the questions on these."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from stages.preparing import delimited
from stages.preparing.delimited import Record

COLUMNS = ("id", "title", "context", "question", "answers")
"""Of a row, which is a question; `answers` is a list of {text, answer_start}, empty where the
question is marked as impossible."""


def articles(text: str) -> list[Any] | None:
    """The articles that a text holds, or None where it is anything else."""
    if not text.lstrip("\ufeff \t\r\n").startswith("{"):
        return None
    try:
        content = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None
    found = content.get("data") if isinstance(content, dict) else None
    if not isinstance(found, list) or not any(_list(article, "paragraphs") for article in found):
        return None
    return found


def records(found: list[Any], file: str, columns: Sequence[str]) -> Iterator[Record]:
    """The questions of articles with the values of `columns`, numbered from 1.

    Raises:
        UserError: a column is missing.
    """
    names = [COLUMNS[at] for at in delimited.positions(file, columns, COLUMNS)]
    for number, row in enumerate(_rows(found), 1):
        if isinstance(row, str):
            yield number, row
            continue
        values = [row[name] for name in names]
        yield number, [one if isinstance(one, str) else json.dumps(one) for one in values]


def _rows(found: list[Any]) -> Iterator[dict[str, Any] | str]:
    for article in found:
        for paragraph in _list(article, "paragraphs"):
            for question in _list(paragraph, "qas"):
                texts = (paragraph.get("context"), question.get("question"))
                if not all(isinstance(one, str) for one in texts):
                    yield "not SQuAD: a question or context is no text"
                    continue
                answers = [] if question.get("is_impossible") else question.get("answers") or []
                yield {
                    "id": str(question.get("id", "")),
                    "title": str(article.get("title", "")),
                    "context": texts[0],
                    "question": texts[1],
                    "answers": answers,
                }


def _list(content: Any, key: str) -> list[Any]:
    found = content.get(key) if isinstance(content, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
