"""Bad rows of each task, from the raw file through `prepare`: each is named with its reason, and
none of them reaches a split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests import running

Rows = list[tuple[dict[str, Any], str]]
"""Raw rows that cannot be used, and the reasons."""

TEXT = "Anna met Bob."
ANSWER = {"text": "Bob", "answer_start": 9}


def entities(*spans: Any) -> dict[str, Any]:
    named = [dict(zip(("start", "end", "label"), span, strict=True)) for span in spans]
    return {"text": TEXT, "entities": named}


def words(tokens: Any, tags: Any) -> dict[str, Any]:
    return {"tokens": tokens, "tags": tags}


def asked(answers: Any, **others: str) -> dict[str, Any]:
    return {"question": "Who?", "context": TEXT, "answers": answers, **others}


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def answered(**others: Any) -> dict[str, Any]:
    return {"instruction": "Do it.", "input": "", "output": "Done.", **others}


def labelled(task: str, **columns: Any) -> dict[str, Any]:
    return {f"tasks__{task}__data__{key}": value for key, value in columns.items()}


FORMS: dict[str, tuple[str, dict[str, Any], Any, Rows]] = {
    "classification": (
        "classification",
        labelled("classification", label="label", labels=["no", "yes"]),
        lambda i: {"text": f"text {i}", "label": ("no", "yes")[i % 2]},
        [
            ({"text": "x 1", "label": ""}, "no label"),
            ({"text": "x 2", "label": "yess"}, "unknown label 'yess'; did you mean 'yes'?"),
            ({"text": " ", "label": "yes"}, "no text"),
        ],
    ),
    "multilabel": (
        "multilabel",
        labelled("multilabel", labels=["a", "b"]),
        lambda i: {"text": f"text {i}", "labels": [["a"], ["b"], ["a", "b"]][i % 3]},
        [
            ({"text": "x 1", "labels": []}, "no label"),
            ({"text": "x 2", "labels": ["a", "c"]}, "unknown label 'c'; write one of: a, b"),
            ({"text": "x 3", "labels": [["a"]]}, "not a list of labels: '[[\"a\"]]'"),
            ({"text": "x 4", "labels": {"a": 1}}, "not a list of labels: '{\"a\": 1}'"),
            ({"text": "x 5", "labels": ["a", "\ud83d"]}, "undecodable bytes"),
            ({"text": "x 6", "labels": "[a, b]"}, "not a list of labels: '[a, b]'"),
            ({"text": "x 7", "labels": [None]}, "no label"),
        ],
    ),
    "regression": (
        "regression",
        labelled("regression", value="value"),
        lambda i: {"text": f"text {i}", "value": i / 7},
        [
            ({"text": "x 1", "value": "NaN"}, "not a finite number: 'NaN'"),
            ({"text": "x 2", "value": "-inf"}, "not a finite number: '-inf'"),
            ({"text": "x 3", "value": None}, "no value"),
            ({"text": "x 4", "value": "3,5"}, "not a finite number: '3,5'"),
        ],
    ),
    "entities": (
        "token_classification",
        labelled("token_classification", labels=["person"]),
        lambda i: {"text": f"{TEXT} {i}", "entities": [{"start": 0, "end": 4, "label": "person"}]},
        [
            (
                entities((0, 8, "person"), (5, 8, "person")),
                "entities overlap: 'Anna met' and 'met'",
            ),
            (
                entities((1, 4, "person")),
                "entity 'nna' (1 to 4) begins within a word or in space",
            ),
            (entities((0, 5, "person")), "entity 'Anna ' (0 to 5) ends within a word or in space"),
            (entities((0, 4, "persn")), "unknown label 'persn'; did you mean 'person'?"),
            (
                entities((9, 99, "person")),
                "entity outside of the text, or without label: {'start': 9, 'end': 99",
            ),
        ],
    ),
    "tags": (
        "token_classification",
        labelled("token_classification", text=None, entities=None, tokens="tokens", tags="tags"),
        lambda i: {"tokens": ["Anna", "met", str(i)], "tags": ["B-person", "O", "O"]},
        [
            (words(["a", "b"], ["O"]), "ragged: 2 tokens, 1 tags"),
            (words(["a", "b"], ["O", "I-person"]), "tag 'I-person' of word 2 goes on with no"),
            (words(["a", ""], ["O", "O"]), "token 2 is empty"),
            (words(["a", "b"], ["O", "Person"]), "tag 'Person' of word 2 is none of iob2 (O, B-,"),
            (words("a b", ["O", "O"]), "tokens: no list of texts: 'a b'"),
            (words(["a", "\ud83d"], ["O", "O"]), "undecodable bytes"),
        ],
    ),
    "question_answering": (
        "question_answering",
        labelled("question_answering", unanswerable=False),
        lambda i: {"question": f"Who {i}?", "context": f"{TEXT} {i}", "answers": [ANSWER]},
        [
            (
                asked([{"text": "Bob", "answer_start": 8}]),
                "answer 'Bob' does not stand at 8 of its context, but ' Bo'",
            ),
            (
                asked([{"text": "Eve", "answer_start": 9}]),
                "answer 'Eve' does not stand at 9 of its context, but 'Bob'",
            ),
            (asked([{"text": "", "answer_start": 9}]), "an answer is empty"),
            (asked([]), "no answer"),
            (asked("Bob"), "answers: no list of {text, answer_start}: 'Bob'"),
            (asked([ANSWER], question=" "), "no question"),
            (asked([ANSWER | {"answer_start": "9"}]), "answers: no list of {text, answer_start}"),
        ],
    ),
    "instructions": (
        "generation",
        {},
        lambda i: answered(instruction=f"Do {i}.", output=f"Done {i}."),
        [
            (answered(output=""), "no response"),
            (answered(instruction=" ", input="x"), "no instruction"),
        ],
    ),
    "chats": (
        "generation",
        labelled(
            "generation", instruction=None, input=None, output=None, messages="messages"
        ),
        lambda i: chat(("user", f"Do {i}."), ("assistant", f"Done {i}.")),
        [
            (
                chat(("user", "a"), ("asistant", "b")),
                "unknown role 'asistant' of message 2; did you mean 'assistant'?",
            ),
            (chat(("user", "a"), ("assistant", "")), "no response"),
            (chat(("user", "a")), "no response: the last message is not the assistant's"),
            (chat(("assistant", "a")), "no prompt: no message of the user before the last"),
            ({"messages": "a"}, "messages: no list: 'a'"),
            (chat(("user", "a \ud83d"), ("assistant", "b")), "undecodable bytes"),
            ({"messages": [{"role": "user"}]}, "message 1 is no {role, content} of texts"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_bad_rows_are_named_and_left_out(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, changes, good, bad = FORMS[form]
    rows = [good(i) for i in range(60)]
    # Among the good ones, so that a line counted wrongly shows.
    for place, (row, _) in enumerate(bad):
        rows.insert(5 * place + 3, row)
    content = "".join(json.dumps(row) + "\n" for row in rows)
    running.ready(tmp_path, task, content, "x.jsonl", **changes)
    monkeypatch.chdir(tmp_path)
    running.run("prepare")
    rejected = pd.read_parquet("data/prepared/rejected.parquet").set_index("line")["reason"]
    assert rejected.index.tolist() == [5 * place + 4 for place in range(len(bad))]
    for reason, (_, expected) in zip(rejected, bad, strict=True):
        assert reason.startswith(expected)
    parts = [
        pd.read_parquet(f"data/prepared/{split}.parquet")
        for split in ("train", "validation", "test")
    ]
    lines = sorted(line for part in parts for line in part["line"])
    assert lines == [n for n in range(1, len(rows) + 1) if n not in rejected.index]


FILES = {
    "conll": (
        "token_classification",
        "".join(f"Anna X B-person\nmet X O\n{i} X O\n\n" for i in range(40)),
        labelled("token_classification", text=None, entities=None, tokens="tokens", tags="tags"),
        ("text", "Anna met 0", "tags", '["B-person", "O", "O"]'),
    ),
    "conllu": (
        "token_classification",
        "".join(
            f"# sent_id = {i}\n1\tHe\the\tPRON\t_\t_\t2\tx\t_\t_\n2\tsat\tsit\tVERB\t_\t_\t0\tx\t_\t_\n"
            f"3\t{i}\t{i}\tNUM\t_\t_\t2\tx\t_\t_\n\n"
            for i in range(40)
        ),
        labelled(
            "token_classification", text=None, entities=None, tokens="form", tags="upos",
            scheme="plain",
        ),
        ("text", "He sat 0", "tags", '["PRON", "VERB", "NUM"]'),
    ),
    "json": (
        "question_answering",
        json.dumps(
            {
                "version": "1.1",
                "data": [
                    {
                        "title": f"t{i}",
                        "paragraphs": [
                            {
                                "context": f"{TEXT} {i}",
                                "qas": [{"id": f"q{i}", "question": f"Who {i}?", "answers": [ANSWER]}],
                            }
                        ],
                    }
                    for i in range(40)
                ],
            }
        ),
        {},
        ("question", "Who 0?", "answers", '[{"text": "Bob", "start": 9}]'),
    ),
}  # fmt: skip


@pytest.mark.parametrize("ending", FILES)
def test_the_formats_of_the_field_are_prepared(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CoNLL, CoNLL-U and SQuAD's JSON as they lie on a user's disk."""
    task, content, changes, (key, value, target, expected) = FILES[ending]
    running.ready(tmp_path, task, content, f"x.{ending}", **changes)
    monkeypatch.chdir(tmp_path)
    running.run("prepare")
    rows = pd.concat(
        pd.read_parquet(f"data/prepared/{split}.parquet")
        for split in ("train", "validation", "test")
    )
    assert len(rows) == 40
    (found,) = rows.loc[rows[key] == value, target]
    assert found == expected
