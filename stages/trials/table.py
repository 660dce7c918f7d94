"""Outcomes of many trials: one row a configuration, with mean and spread over its seeds."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.artifacts import read_json
from stages.errors import UserError

SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Row:
    """One configuration. `values` are those of the main metric in each trial, by split."""

    config: dict[str, Any]
    values: dict[str, list[float]]
    trained_parameters: int

    def mean(self, split: str) -> float:
        values = self.values[split]
        return math.fsum(values) / len(values)

    def deviation(self, split: str) -> float | None:
        """Standard deviation over the trials (n - 1 below); None of one alone."""
        values, mean = self.values[split], self.mean(split)
        if len(values) < 2:
            return None
        return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


@dataclass(frozen=True)
class Table:
    """Configurations, the best on the validation split first."""

    metric: str
    rows: list[Row]
    left_out: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    """Configurations of which a trial has no number for the metric, each with the reason."""

    def best(self) -> Row:
        return self.rows[0]


def is_seed(key: str) -> bool:
    """Does a parameter only draw another sample of the same configuration?"""
    return key == "trial.draw" or key.endswith(".seed")


def read(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Trials as `stages.trial` wrote them.

    Raises:
        UserError: no trial, or a file of something else.
    """
    trials = []
    for file in files:
        trial = read_json(file)
        if not (isinstance(trial, dict) and _is_outcome(set(trial))):
            raise UserError(f"{file}: not the outcome of a trial; move it elsewhere")
        trials.append(trial)
    if not trials:
        raise UserError("no trial to compare; run those of its dvc.yaml first")
    return trials


def _is_outcome(keys: set[str]) -> bool:
    skipped = {"lacking", "refused"} & keys
    return "overrides" in keys and (bool(skipped) or {"main_metric", *SPLITS} <= keys)


def chosen(
    trials: Iterable[Mapping[str, Any]], grid: Mapping[str, Sequence[Any]]
) -> list[Mapping[str, Any]]:
    """The trials of a grid; outcomes of values that are no longer in it may lie beside them."""
    return [
        trial
        for trial in trials
        if trial["overrides"].keys() == grid.keys()
        and all(trial["overrides"][key] in values for key, values in grid.items())
    ]


def tabulate(trials: Sequence[Mapping[str, Any]]) -> Table:
    """Group by everything but seeds. Order: mean of the main metric on the validation split, the
    higher first; then fewer trained parameters. The test split has no say.

    Raises:
        UserError: no trial has the metric.
    """
    measured = [trial for trial in trials if set(SPLITS) <= trial.keys()]
    metric = measured[0]["main_metric"] if measured else ""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for trial in trials:
        config = {key: value for key, value in trial["overrides"].items() if not is_seed(key)}
        groups.setdefault(repr(sorted(config.items())), []).append(trial)
    rows, left_out = [], []
    for _, of in sorted(groups.items()):
        config = {key: value for key, value in of[0]["overrides"].items() if not is_seed(key)}
        if all(metric in trial.get(split, ()) for trial in of for split in SPLITS):
            values = {split: [trial[split][metric] for trial in of] for split in SPLITS}
            rows.append(Row(config, values, of[0]["trained_parameters"]))
        else:
            left_out.append((config, _why(of, metric)))
    if not rows and not measured:
        raise UserError(*(f"trials: {title(config)}: {why}" for config, why in left_out))
    if not rows:
        raise UserError(
            f"trials: {metric} is no number in any configuration, for training diverged or all "
            "targets are one; write lower learning rates"
        )
    rows.sort(key=lambda row: (-row.mean("validation"), row.trained_parameters))
    return Table(metric, rows, left_out)


def _why(trials: Sequence[Mapping[str, Any]], metric: str) -> str:
    for trial in trials:
        if "refused" in trial:
            return str(trial["refused"])
        if "lacking" in trial:
            return f"the training split has {trial['rows']:,} rows, fewer than trial.rows"
    return f"{metric} is no number"


def as_json(table: Table) -> dict[str, Any]:
    return {
        "main_metric": table.metric,
        "chosen_on": "validation",
        "best": _row(table.best()),
        "configurations": [_row(row) for row in table.rows],
        "left_out": [{"parameters": config, "reason": reason} for config, reason in table.left_out],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "parameters": row.config,
        "trials": len(row.values["validation"]),
        **{
            split: {
                "mean": row.mean(split),
                "sd": row.deviation(split),
                "low": min(row.values[split]),
                "high": max(row.values[split]),
            }
            for split in SPLITS
        },
        "trained_parameters": row.trained_parameters,
    }


def as_csv(table: Table) -> str:
    keys = list(dict.fromkeys(key for row in table.rows for key in row.config))
    columns = [f"{split}_{what}" for split in SPLITS for what in ("mean", "sd", "low", "high")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, "trials", *columns, "trained_parameters"])
    for row in map(_row, table.rows):
        numbers = [row[split][what] for split in SPLITS for what in ("mean", "sd", "low", "high")]
        config = [row["parameters"].get(key, "") for key in keys]
        writer.writerow([*config, row["trials"], *numbers, row["trained_parameters"]])
    return text.getvalue()


def told(table: Table, most: int = 20) -> list[str]:
    """Lines for a terminal: the best first, mean and standard deviation of the main metric."""
    heads = [title(row.config) for row in table.rows[:most]]
    width = max(map(len, [*heads, "configuration"]))
    lines = [f"{'configuration':<{width}}  {'validation':<15}  {'test':<15}  trials"]
    for head, row in zip(heads, table.rows, strict=False):
        cells = "  ".join(f"{_spread(row, split):<15}" for split in SPLITS)
        lines.append(f"{head:<{width}}  {cells}  {len(row.values['validation'])}")
    if len(table.rows) > most:
        lines.append(f"and {len(table.rows) - most} more")
    for config, reason in table.left_out:
        lines.append(f"left out, for {reason}: {title(config)}")
    return lines


def _spread(row: Row, split: str) -> str:
    deviation = row.deviation(split)
    return f"{row.mean(split):.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")


def title(config: Mapping[str, Any]) -> str:
    """`learning_rate 0.0001, batch_size 16`"""
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in config.items()) or "all"
