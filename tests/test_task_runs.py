"""Every task from its raw file to its report, export and answers, on a tiny base."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages import __main__, plugins, predict, trial
from stages.artifacts import read_arrow
from stages.common.prompts import NO_GOAL
from stages.exporting import inference
from stages.tasks.token_classification import NO_LOSS
from stages.training.batching import Rows
from tests import running
from tests.running import json_of, words

ROWS = 80


def _csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _pairs(draw: np.random.Generator) -> dict[str, Any]:
    first = words(draw, 6)
    second = first[:3] if draw.random() < 0.5 else words(draw, 3)
    return {"text": " ".join(first), "text_pair": " ".join(second)}


def raw(task: str) -> tuple[str, str, dict[str, Any]]:
    """File name, content and parameters of small data of a task."""
    draw, rows = np.random.default_rng(0), []
    for number in range(ROWS):
        text = " ".join(words(draw, int(draw.integers(3, 20))))
        if task == "classification":
            pair = _pairs(draw)
            label = "yes" if pair["text_pair"] in pair["text"] else "no"
            rows.append(pair | {"label": label})
        elif task == "multilabel":
            given = [name for name in ("film", "good", "a, b") if draw.random() < 0.5]
            rows.append({"text": f"{text} {' '.join(given)}", "labels": given or ["good"]})
        elif task == "regression":
            rows.append({"text": text, "rating": f"{100 + text.count('good') + number % 3:g}"})
        elif task == "question_answering":
            context = words(draw, int(draw.integers(4, 12 if number % 4 < 3 else 30)))
            at = int(draw.integers(0, len(context) - 1))
            answer = {"text": context[at + 1], "answer_start": len(" ".join(context[: at + 1])) + 1}
            asked = {"context": " ".join(context), "question": f"what is {context[at]} to ?"}
            rows.append(asked | {"answers": [answer] if number % 4 else []})
        elif task == "generation":
            word = str(draw.choice(["good", "bad", "film"]))
            rows.append(
                {"instruction": f"{word} {number} ?", "input": "", "output": f"it is {word}"}
            )
        elif task == "token_classification":
            text = " ".join(words(draw, int(draw.integers(3, 40))))
            found = re.finditer("good film|phone|good", text)
            spans = [{"start": m.start(), "end": m.end(), "label": m[0][-4:]} for m in found]
            rows.append({"text": text, "entities": spans})
    if task == "classification":
        key = "tasks__classification__data__text_pair"
        return "pairs.csv", _csv(rows), {key: "text_pair"}
    if task == "generation":  # whose tokens are bytes
        small = {"tokenize__max_length": 80, "evaluate__decoding__max_new_tokens": 16}
        return "rows.jsonl", _lines(rows), small
    if task in ("multilabel", "question_answering", "token_classification"):
        return "rows.jsonl", _lines(rows), {}
    return "rows.csv", _csv(rows), {}


TASKS = plugins.names("tasks")


@pytest.fixture(scope="module", params=TASKS)
def done(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A task, and the folder in which all of its stages have run."""
    task = str(request.param)
    folder = tmp_path_factory.mktemp(task)
    name, content, changes = raw(task)
    running.ready(folder, task, content, name, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(running.ROOT))
        running.run()
    yield task, folder


@pytest.fixture(autouse=True)
def inside(done: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(done[1])


def test_every_metric_has_an_interval(done: tuple[str, Path]) -> None:
    task = plugins.load("tasks", done[0])
    metrics = json_of("results/metrics.json")["metrics"]
    assert task.MAIN_METRIC in metrics and set(task.LOWER_IS_BETTER) <= set(metrics)
    for name, one in metrics.items():
        assert one.get("reason") or one["low"] <= one["value"] <= one["high"], name
    for name, of in json_of("results/baseline.json")["baselines"].items():
        assert set(of) == set(metrics), name


def test_every_row_is_kept_or_has_its_reason(done: tuple[str, Path]) -> None:
    rows = json_of("results/data.json")["rows"]
    rejected = pd.read_parquet("data/prepared/rejected.parquet")
    assert rows["read"] == ROWS == rows["kept"] + len(rejected)
    assert (rejected["reason"] != "").all()


def test_the_report_is_whole(done: tuple[str, Path]) -> None:
    html = Path("results/report.html").read_text(encoding="utf-8")
    assert html.count("<section") == html.count("</section>") >= 6
    assert "NaN" not in html and "None" not in html


def reached(task: str, part: dict[str, Any]) -> int:
    """Targets that a part of a batch brings to the loss."""
    if task == "token_classification":
        return int((part["tag"] != NO_LOSS).sum())
    if task == "question_answering":
        return int((part["begin"] > 0).sum())
    if task == "generation":
        return int((part["goal"] != NO_GOAL).sum())
    return int(part["target"].sum()) if task == "multilabel" else len(part["target"])


def given(task: str, rows: pd.DataFrame) -> int:
    """Targets of prepared rows."""
    if task == "token_classification":
        return sum(len(json.loads(of)) for of in rows["tags"])
    if task == "question_answering":
        return int((rows["answers"] != "[]").sum())
    if task == "generation":  # its tokens are bytes, and one ends it
        return sum(len(text.encode()) + 1 for text in rows["response"])
    return sum(len(json.loads(of)) for of in rows["labels"]) if task == "multilabel" else len(rows)


def test_no_target_is_lost_in_silence(done: tuple[str, Path]) -> None:
    """What the raw file has reaches the loss in each epoch, or is counted as lost or rejected."""
    task = done[0]
    kept = 0
    for split in ("train", "validation", "test"):
        rows = pd.read_parquet(f"data/prepared/{split}.parquet")
        kept += len(rows)
        table = read_arrow(f"data/tokenized/{split}.arrow")
        counts = json_of("results/tokens.json")["splits"][split]
        parts = Rows(table, 0, 2)[np.arange(len(table))]
        found = sum(reached(task, part) for part in parts)
        lost = counts.get("lost_targets", 0) + counts.get("cut_target_tokens", 0)
        assert found > 0 and (found == given(task, rows) - lost or task == "question_answering")
        if task == "question_answering":  # an answer may be whole in two windows
            answers = np.array(table["row"])[np.array(table["begin"]) > 0]
            assert len(set(answers.tolist())) == given(task, rows) - lost
    assert kept + len(pd.read_parquet("data/prepared/rejected.parquet")) == ROWS


def test_the_report_tells_targets_as_people_read_them(done: tuple[str, Path]) -> None:
    html = Path("results/report.html").read_text(encoding="utf-8")
    listed = re.findall(r"(?:labelled|predicted) <b><bdi>(.*?)</bdi>", html)
    assert listed
    if done[0] == "question_answering":
        assert any("(no answer)" in one for one in listed)
        assert "Answers beside the first of a question" in html
    if done[0] == "token_classification":
        assert "Worst spans" in html and any(re.search(r"\w \(\w+\)", one) for one in listed)
    assert not any("[" in one or "{" in one for one in listed)


def test_the_card_tells_what_was_tuned(done: tuple[str, Path]) -> None:
    card = Path("models/export/README.md").read_text(encoding="utf-8")
    learnt = json_of("models/export/config.json")["finetuning_learnt"]
    told = {"multilabel": "thresholds", "question_answering": "margin"}.get(done[0])
    assert ("tuned on the validation" in " ".join(card.split())) == bool(told)
    for value in learnt[told] if told else ():
        assert f"{value:.4g}" in card


@pytest.mark.parametrize("done", ["generation"], indirect=True)
def test_what_is_asked_is_read_in_every_form_of_training(done: tuple[str, Path]) -> None:
    say = [{"role": "user", "content": "good 1 ?"}, {"role": "assistant", "content": "it is"}]
    lines: list[dict[str, Any]] = [
        {"prompt": "good 1 ?"},
        {"instruction": "good", "input": "1 ?"},
        {"messages": [*say, {"role": "user", "content": "why ?"}]},
        {"messages": say},
        {"messages": [{"role": "usr", "content": "a"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"instruction": 5, "messages": None, "prompt": None},
        {"text": "a"},
    ]
    Path("asked.jsonl").write_text(_lines(lines), encoding="utf-8")
    out = subprocess.run(
        [sys.executable, "-m", "stages", "predict", "--file", "asked.jsonl"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["prompt"] for one in found[:3]] == [
        "good 1 ?", "good\n\n1 ?", "user: good 1 ?\nassistant: it is\nuser: why ?",
    ]  # fmt: skip
    assert all(isinstance(one["response"], str) for one in found[:3])
    assert [one["reason"] for one in found[3:]] == [
        "no prompt: the last message is not the user's",
        "unknown role 'usr' of message 1; did you mean 'user'?",
        "message 1 is empty",
        "no key 'instruction' that holds a text",
        "no key 'prompt', 'instruction' or 'messages'",
    ]
    model = inference.load("models/export")
    rows = pd.DataFrame(
        {
            "prompt": [""],
            "response": [""],
            "messages": [json.dumps([*say, {"role": "user", "content": "why ?"}])],
        }
    )
    # A template may refuse a conversation, which is that line's reason and no other's.
    template = Path("models/export/chat_template.jinja")
    plain = template.read_text(encoding="utf-8")
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    refusing += "{% if 'secret' in messages[0]['content'] %}{{ raise_exception('no') }}{% endif %}"
    lines = [
        {"messages": [{"role": "system", "content": "be"}, say[0]]},
        {"messages": [say[0]]},
        {"prompt": "a secret"},
    ]
    template.write_text(refusing + plain, encoding="utf-8")
    Path("asked.jsonl").write_text(_lines(lines), encoding="utf-8")
    out = subprocess.run(
        [sys.executable, "-m", "stages", "predict", "--file", "asked.jsonl"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    template.write_text(plain, encoding="utf-8")
    refused, answered, other = (json.loads(line) for line in out.splitlines())
    assert other["reason"] == "the chat template refuses it: no"
    assert refused["reason"] == "the chat template refuses it: no system"
    assert refused["response"] is None and isinstance(answered["response"], str)
    asked = model.tokenizer.decode(model.examples(rows).ids, skip_special_tokens=True)
    assert "it is" in asked and asked.index("good 1 ?") < asked.index("why ?"), "all turns are read"


def test_answers_are_those_that_were_evaluated(done: tuple[str, Path]) -> None:
    task = plugins.load("tasks", done[0])
    rows = pd.read_parquet("results/predictions.parquet").head(8)
    model = inference.load("models/export")
    texts = [
        predict.Text({role: row[role] for role in model.texts}) for row in rows.to_dict("records")
    ]
    answers = predict.answers(model, task, texts)
    for answer, written in zip(answers, rows["predicted"], strict=True):
        value = answer[task.TARGET]
        if isinstance(value, float):
            assert value == pytest.approx(float(written), rel=1e-5)
        else:
            assert (value if isinstance(value, str) else json.dumps(value)) == written


def test_plain_transformers_loads_the_export(done: tuple[str, Path]) -> None:
    """The pipeline of the task, as a user calls it, gives what was evaluated."""
    from transformers import pipeline

    name = done[0]
    rows = pd.read_parquet("results/predictions.parquet").head(4)
    if name == "question_answering":  # transformers 5 has no pipeline for it
        _check_answers(pd.read_parquet("results/predictions.parquet"))
        return
    pipe = pipeline(plugins.load("tasks", name).HUB_TASK, "models/export")
    if name == "generation":
        for row in rows.to_dict("records"):
            found = pipe([{"role": "user", "content": row["prompt"]}], return_full_text=False)
            assert found[0]["generated_text"].strip() == row["predicted"]
        return
    labels = json_of("data/prepared/labels.json")
    for row in rows.to_dict("records"):
        if name == "token_classification":
            _check_tags(pipe(row["text"], ignore_labels=[]), row)
            continue
        inputs: Any = row["text"]
        if "text_pair" in row:
            inputs = {"text": row["text"], "text_pair": row["text_pair"]}
        found = pipe(inputs, top_k=None, truncation=True)
        if name == "regression":
            assert found[0]["score"] == pytest.approx(float(row["predicted"]), rel=1e-4)
            continue
        scores = {one["label"]: one["score"] for one in found}
        expected = dict(zip(labels, row["scores"], strict=False))
        assert scores == pytest.approx(expected, abs=1e-4)


def _check_tags(found: list[dict[str, Any]], row: dict[Any, Any]) -> None:
    """The pipeline reads one window: the words that begin in it have the evaluated tags, but for
    those near its end, which count in the next."""
    by_start = {one["start"]: one["entity"] for one in found}
    starts = json.loads(row["words"])[::2]
    tags = dict(zip(starts, json.loads(row["predicted"]), strict=True))
    whole = len(starts) < 20
    compared = [start for start in starts if start in by_start][: None if whole else 5]
    assert len(compared) == (len(starts) if whole else 5)
    assert [by_start[start] for start in compared] == [tags[start] for start in compared]


def _check_answers(rows: pd.DataFrame) -> None:
    """The best pair of tokens of the context, where all of it fits the model, is the answer."""
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    model = AutoModelForQuestionAnswering.from_pretrained("models/export")
    tokenizer = AutoTokenizer.from_pretrained("models/export")
    compared = 0
    for row in rows.to_dict("records"):
        given = json.loads(row["predicted"])
        encoded = tokenizer(row["question"], row["context"], return_tensors="pt")
        if not given or encoded["input_ids"].shape[1] > 24:
            continue
        with torch.no_grad():
            found = model(**encoded)
        of = encoded.sequence_ids(0)
        sums = found.start_logits[0][:, None] + found.end_logits[0][None]
        pairs = [
            (float(sums[i, j]), i, j)
            for i in range(len(of))
            for j in range(i, len(of))
            if of[i] == of[j] == 1
        ]
        _, first, last = max(pairs)
        start, end = encoded.token_to_chars(first).start, encoded.token_to_chars(last).end
        assert row["context"][start:end] == given[0]["text"]
        compared += 1
    assert compared


def test_a_trial_measures_some_of_the_rows(done: tuple[str, Path]) -> None:
    """Between those that are drawn others are left out, of which windows may be many."""
    given = ["trial.rows=20", "trial.validation_rows=4", "trial.draw=1", "finetune.epochs=1"]
    __main__.run_trial("trial", ["results/trials/t.json", *given])
    found = json_of("results/trials/t.json")
    assert found["validation"] and found["test"]
    whole = read_arrow("data/tokenized/validation.arrow")
    assert trial._count(whole) > trial._count(trial.drawn(whole, 4, 1)) == 4
    if "row" in whole.column_names:
        row = trial.renumbered(trial.drawn(whole, 4, 1))["row"].to_pylist()
        assert sorted(set(row)) == [0, 1, 2, 3] and row == sorted(row)
