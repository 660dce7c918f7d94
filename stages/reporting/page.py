"""The report's content in the order of the page, and its rendering to one HTML file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.common.texts import present
from stages.reporting import figures, matrices, text
from stages.reporting.verdict import compare, estimates, headline

if TYPE_CHECKING:
    import pandas as pd

MISTAKES = 10
MISTAKE_CHARACTERS = 600
LOST = {  # counts of results/tokens.json
    "lost_targets": "Targets that no token or window holds, which count as missed",
    "further_answers": "Answers beside the first of a question, which count as right and are not "
    "learnt",
    "cut_prompts": "Prompts cut at their beginning",
    "cut_responses": "Responses cut before their end",
    "cut_target_tokens": "Tokens that were cut off responses, which nothing learns",
}


@dataclass(frozen=True)
class Inputs:
    """What the report is made of: the content of the files that other stages wrote.

    `curve` has a dict of column to text for each epoch; `predictions` and `baseline_predictions`
    have the columns that evaluate and baseline wrote.
    """

    base: Any
    data: Any
    tokens: Any
    training: Any
    metrics: Any
    details: Any
    baseline: Any
    labels: Any
    curve: list[dict[str, str]]
    predictions: pd.DataFrame
    baseline_predictions: pd.DataFrame


def render(title: str, task: Any, inputs: Inputs, own: Mapping[str, Any]) -> str:
    """The whole page. `own` has the report's `parameters` and `libraries`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates"), encoding="utf-8"),
        autoescape=True,  # every file's content is text, never markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_finalize,
    )
    names = ("clip", "count", "heading", "interval", "name", "number", "percent", "share")
    environment.filters |= {name: getattr(text, name) for name in names}
    environment.filters["breakable"] = _breakable
    parts = {
        "title": title,
        "head": headline(inputs.metrics, inputs.baseline, _comparison(task, inputs)),
        "forests": _forests(inputs),
        "data": _data(inputs),
        "tokens": inputs.tokens,
        "lost": list(_lost(inputs.tokens)),
        "windowed": task.WINDOWED,
        "training": _training(inputs),
        "tables": [_table(table) for table in inputs.details.get("tables", [])],
        "matrices": [
            matrices.matrix(content)
            for content in inputs.details.get("matrices", [])
            if content.get("labels")
        ],
        "curves": [
            figures.reliability(content)
            for content in inputs.details.get("curves", [])
            if content.get("points")
        ],
        "slices": _slices(inputs),
        "mistakes": _mistakes(task, inputs),
        "base": inputs.base,
        "metrics": inputs.metrics,
        "details": inputs.training,
        "memory": ", ".join(
            f"{part} {text.number(round(size / 1e6))} MB"
            for part, size in (inputs.training.get("memory_bytes") or {}).items()
        ),
        "parameters": _parameters(inputs, own),
        "libraries": _libraries(inputs, own),
    }
    return environment.get_template("report.html.j2").render(parts)


def _comparison(task: Any, inputs: Inputs) -> dict[str, Any] | None:
    return compare(
        task,
        inputs.labels,
        inputs.metrics,
        inputs.baseline,
        inputs.predictions,
        inputs.baseline_predictions,
    )


def _lost(tokens: Mapping[str, Any]) -> Iterator[str]:
    """Lines on what of the targets no model learns, for a task that may lose any."""
    for key, what in LOST.items():
        splits = tokens.get("splits", {}).items()
        counts = {name: split[key] for name, split in splits if key in split}
        if counts:
            told = ", ".join(f"{text.count(count)} ({name})" for name, count in counts.items())
            yield f"{what}: {told if any(counts.values()) else 'none'}."


def _finalize(value: Any) -> Any:
    """Whatever a template prints: a dash for what is absent, no control characters."""
    if value is None:
        return text.MISSING
    return text.printable(value) if isinstance(value, str) else value


def _breakable(value: str) -> str:
    """Escaped, and free to wrap after an underscore: labels are often_long_identifiers."""
    from markupsafe import Markup, escape

    return escape(text.printable(value)).replace("_", Markup("_<wbr>"))


def _forests(inputs: Inputs) -> list[tuple[str, str, figures.Forest]]:
    """Each metric, a remark on it, and the estimates of all models; the main metric first."""
    metrics = inputs.metrics["metrics"]
    lower = inputs.metrics.get("lower_is_better", ())
    found = []
    for name in sorted(metrics, key=lambda name: name != inputs.metrics["main_metric"]):
        sense = "lower is better" if name in lower else ""
        remark = ", ".join(filter(None, (sense, metrics[name].get("reason"))))
        models = estimates(name, "fine-tuned", inputs.metrics, inputs.baseline)
        found.append((name, remark, figures.forest(models)))
    return found


def _slices(inputs: Inputs) -> list[figures.Slices]:
    metric = inputs.metrics["main_metric"]
    whole = inputs.metrics["metrics"].get(metric, {}).get("value")
    return [
        figures.slices(content, metric, whole)
        for content in inputs.details.get("slices", [])
        if content.get("rows")
    ]


def _data(inputs: Inputs) -> dict[str, Any]:
    """Splits, label balance and the rest of data.json, with every optional part present."""
    data = inputs.data
    splits = data.get("splits") or {}
    counts = [split.get("labels") or {} for split in splits.values()]
    labels = list(dict.fromkeys(label for split in counts for label in split))
    total = {label: sum(split.get(label) or 0 for split in counts) for label in labels}
    return {
        "rows": data.get("rows") or {},
        "rejected": data.get("rejected") or {},
        "splits": splits,
        "labels": [(label, [split.get(label) or 0 for split in counts]) for label in labels],
        "total": total,
        "largest": max(total.values(), default=0),
        "characters": data.get("characters") or {},
        "regime": data.get("regime") or {},
        "notes": data.get("notes") or [],
        "files": data.get("files") or {},
    }


def _training(inputs: Inputs) -> dict[str, Any]:
    """Learning curves: the charts, and the same numbers as a table."""
    rows, best = inputs.curve, inputs.training.get("best_epoch")
    columns = list(rows[0]) if rows else []
    values = {column: [_float(row[column]) for row in rows] for column in columns}
    epochs = [epoch or 0.0 for epoch in values.get("epoch", [])]
    metric = inputs.training.get("selected_by") or inputs.metrics["main_metric"]
    losses = {"train": "train_loss", "validation": "validation_loss"}
    wanted = {"loss": losses, text.name(metric): {"validation": f"validation_{metric}"}}
    charts = []
    for title, names in wanted.items():
        series = {split: values[column] for split, column in names.items() if column in values}
        if series and (chart := figures.chart(title, epochs, series, best)):
            charts.append(chart)
    shown = [column for column in columns if column != "learning_rate"]
    table = _table({"columns": shown, "rows": [_numbers(row, shown) for row in rows]})
    row = epochs.index(best) if best in epochs else None
    return {"charts": charts, "table": table, "best": best, "row": row}


def _numbers(row: Mapping[str, str], columns: list[str]) -> list[Any]:
    """Cells of a line of the CSV: whole numbers stay whole, so that epoch 3 is not 3.000."""
    cells = [row[column] for column in columns]
    return [int(cell) if cell.isdigit() else _float(cell) for cell in cells]


def _float(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None  # NaN compares false


def _table(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table of details.json, and which of its columns are numbers."""
    rows, columns = table.get("rows") or [], table.get("columns") or []
    numeric = [
        bool(rows) and all(isinstance(row[index], int | float | None | dict) for row in rows)
        for index in range(len(columns))
    ]
    return {
        "title": table.get("title"),
        "note": table.get("note"),
        "columns": [text.name(str(column)) for column in columns],
        "rows": [list(zip(map(_cell, row), numeric, strict=True)) for row in rows],
        "numeric": numeric,
    }


def _cell(value: Any) -> str:
    return text.interval(value) if isinstance(value, Mapping) else text.number(value)


def _mistakes(task: Any, inputs: Inputs) -> dict[str, Any]:
    """The wrong predictions that are the worst by the task's measure; of all rows where none is
    right or wrong."""
    rows = inputs.predictions
    target = task.targets(rows, inputs.labels)
    scores = np.stack(list(rows["scores"]))
    right = task.right(target, scores)
    measure, severity = task.severity(target, scores)
    wrong = np.arange(len(rows)) if right is None else np.flatnonzero(~right)
    # Stable: ties stay in the order of the file.
    order = wrong[np.argsort(-severity[wrong], kind="stable")][:MISTAKES]
    texts = present(task.TEXTS, rows.columns)
    worst = []
    for index, row in zip(order, rows.iloc[order].to_dict("records"), strict=True):
        words = "\n".join(str(row[role]) for role in texts)
        line = row.get("line")
        worst.append(
            {
                "severity": float(severity[index]),
                "line": None if line is None or math.isnan(line) else int(line),
                "text": text.clip(words, MISTAKE_CHARACTERS),
                "characters": len(words),
                "clipped": len(words) > MISTAKE_CHARACTERS,
                **{
                    name: text.clip(
                        task.readable(str(row[of]), row, inputs.labels), MISTAKE_CHARACTERS
                    )
                    for name, of in (("label", task.TARGET), ("predicted", "predicted"))
                },
            }
        )
    count = None if right is None else len(wrong)
    return {"worst": worst, "count": count, "rows": len(rows), "measure": measure}


def _sources(inputs: Inputs, own: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return (
        ("fetch_model", inputs.base),
        ("prepare", inputs.data),
        ("tokenize", inputs.tokens),
        ("finetune", inputs.training),
        ("evaluate", inputs.metrics),
        ("baseline", inputs.baseline),
        ("report", own),
    )


def _parameters(inputs: Inputs, own: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Stage, and its (key, value) pairs; stages that state none are left out."""
    stated = [(stage, of.get("parameters") or {}) for stage, of in _sources(inputs, own)]
    return [(stage, list(text.flatten(values))) for stage, values in stated if values]


def _libraries(inputs: Inputs, own: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Library, version, and the stages whose outputs it shaped."""
    used: dict[tuple[str, str], list[str]] = {}
    for stage, of in _sources(inputs, own):
        for library, version in (of.get("libraries") or {}).items():
            used.setdefault((library, str(version)), []).append(stage)
    return [(*library, ", ".join(stages)) for library, stages in sorted(used.items())]
