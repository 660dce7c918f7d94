"""Every task from its raw file to its report, export and answers, on a tiny base."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages import plugins, predict
from stages.exporting import inference
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
        assert one["low"] <= one["value"] <= one["high"], name
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
