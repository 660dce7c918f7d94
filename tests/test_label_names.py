"""Labels of any name, in any order, are the same labels from the raw file to the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages import plugins, predict
from stages.exporting import inference
from tests import running

# A raw label, its name from then on, and the word that tells it.
LABELS: list[tuple[Any, str, str]] = [
    ('a, "b"', 'a, "b"', "good"),
    ("line\nbreak 'x'", "line break 'x'", "bad"),
    ("🙂 {}[]", "🙂 {}[]", "film"),
    (7, "7", "phone"),
    (True, "true", "food"),
]
NAMES = [name for _, name, _ in LABELS]


def content(several: bool) -> str:
    """Rows whose words tell their labels."""
    draw, lines = np.random.default_rng(0), []
    for number in range(300):
        chosen = [LABELS[number % 5]]
        if several and draw.random() < 0.5:
            chosen.append(LABELS[(number + 1) % 5])
        words = [*(word for *_, word in chosen), *(f"the a it is {number % 60}".split())]
        text = " ".join(draw.permutation(words).tolist())
        value = [raw for raw, *_ in chosen] if several else chosen[0][0]
        lines.append(json.dumps({"text": f"{text} {number}", "label": value}, ensure_ascii=False))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("task", "order"),
    [
        ("classification", []),
        ("classification", NAMES[::-1]),
        ("multilabel", NAMES),
        ("multilabel", NAMES[::-1]),
    ],
)
def test_names_survive(
    task: str, order: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = task == "multilabel"
    column = {f"tasks__{task}__data__{'labels_column' if several else 'label'}": "label"}
    labels: dict[str, Any] = {f"tasks__{task}__data__labels": order}
    running.ready(
        tmp_path,
        task,
        content(several),
        "x.jsonl",
        finetune__epochs=40 if several else 16,
        **column,
        **labels,
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(running.ROOT))
    running.run("fetch_model", "prepare", "tokenize", "finetune", "evaluate", "baseline", "export")
    assert running.json_of("data/prepared/labels.json") == (order or sorted(NAMES))
    module = plugins.load("tasks", task)
    rows = pd.read_parquet("results/predictions.parquet")
    assert rows["predicted"].tolist() == rows[module.TARGET].tolist(), "the words tell the labels"
    config = running.json_of("models/export/config.json")
    assert list(config["id2label"].values()) == (order or sorted(NAMES))
    model = inference.load("models/export")
    found = predict.answers(model, module, [predict.Text({"text": one}) for one in rows["text"]])
    for answer, expected in zip(found, rows[module.TARGET], strict=True):
        assert answer[module.TARGET] == (json.loads(expected) if several else expected)
        assert set(answer["probabilities"]) == set(NAMES)
