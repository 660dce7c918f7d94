"""The result at a glance: the main metric beside each baseline, and what that allows to say.

The report and `python -m stages summary` print the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stages.reporting import text
from stages.statistics import paired

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["better", "open", "worse", "unknown"]
VERDICTS: dict[Outcome, str] = {
    "better": "Better than the best baseline.",
    "open": "Not shown to be better than the best baseline.",
    "worse": "Worse than the best baseline.",
    "unknown": "Not compared with the best baseline.",
}

NOT_ALIKE = "The predictions are not of the same rows; run `dvc repro` to measure both alike"


@dataclass(frozen=True)
class Estimate:
    """One model's value of one metric, with the ends of its interval where there is one."""

    name: str
    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """`0.842 (0.808 to 0.873)`"""
        return text.interval({"value": self.value, "low": self.low, "high": self.high})


@dataclass(frozen=True)
class Headline:
    """The main metric of the fine-tuned model and of the baselines, the best one first."""

    metric: str
    split: str
    rows: int
    confidence: float
    model: Estimate
    baselines: tuple[Estimate, ...]
    outcome: Outcome
    verdict: str
    reason: str

    @property
    def level(self) -> str:
        """`95%`"""
        return f"{100 * self.confidence:g}%"

    @property
    def interval(self) -> str:
        """`95% interval 0.808 to 0.873`"""
        if self.model.low is None or self.model.high is None:
            return f"no {self.level} interval"
        ends = text.number(self.model.low), text.number(self.model.high)
        return f"{self.level} interval {ends[0]} to {ends[1]}"


def estimates(metric: str, model: str, metrics: Any, baseline: Any) -> tuple[Estimate, ...]:
    """A metric of the fine-tuned model, then of each baseline that has it, best first.

    Args:
        metric: name, as in the files.
        model: what to call the fine-tuned model.
        metrics: content of results/metrics.json.
        baseline: content of results/baseline.json.
    """

    def estimate(name: str, value: Mapping[str, float | None]) -> Estimate:
        return Estimate(name, value.get("value"), value.get("low"), value.get("high"))

    others = [
        estimate(name, values[metric])
        for name, values in baseline.get("baselines", {}).items()
        if metric in values
    ]
    sign = 1 if metric in metrics.get("lower_is_better", ()) else -1
    others.sort(key=lambda one: float("inf") if one.value is None else sign * one.value)
    return estimate(model, metrics["metrics"].get(metric, {})), *others


def compare(
    task: Any,
    labels: list[str],
    metrics: Any,
    baseline: Any,
    predictions: pd.DataFrame,
    baseline_predictions: pd.DataFrame,
) -> dict[str, Any] | None:
    """The fine-tuned model against the baseline that is best by the main metric, on the same
    rows: what `stages.statistics.paired` gives; None where there is nothing alike to compare.

    Args:
        labels: in the order of the scores.
        predictions, baseline_predictions: as evaluate and baseline wrote them; rows of the two
            are the same where their `id` is.
    """
    _, *others = estimates(metrics["main_metric"], "fine-tuned", metrics, baseline)
    if not others or others[0].value is None:
        return None
    rows = baseline_predictions
    scores = rows[rows["baseline"] == others[0].name].set_index("id")["scores"]
    assert scores.index.is_unique and predictions["id"].is_unique
    if set(scores.index) != set(predictions["id"]):
        return None
    return paired(
        task.metrics,
        task.targets(predictions, labels),
        np.stack(list(predictions["scores"])),
        np.stack(list(scores.loc[predictions["id"]])),
        metrics["bootstrap"],
        metrics["seed"],
        task.right,
    )


def headline(
    metrics: Any, baseline: Any, comparison: dict[str, Any] | None, why: str = NOT_ALIKE
) -> Headline:
    """The main metric, and whether fine-tuning beats the best baseline.

    Both are measured on the same rows, so the judgement rests on the interval of their
    difference: two intervals of the models alone may overlap where the difference is sure.

    Args:
        comparison: see `compare`.
        why: what to say where there is no comparison.
    """
    metric = metrics["main_metric"]
    model, *baselines = estimates(metric, "fine-tuned", metrics, baseline)
    outcome, reason = _judge(metric, metrics, model, baselines, comparison)
    sizes = [(of["rows"], of["split"]) for of in (metrics, baseline)]
    if baselines and (sizes[0] != sizes[1] or comparison is None):
        outcome, reason = "unknown", f"{why}."
        if sizes[0] != sizes[1]:
            reason = "Measured on " + ", the baselines on ".join(
                f"{text.count(rows)} rows of the {split} split" for rows, split in sizes
            )
            reason += "; run `dvc repro` to measure both alike."
    return Headline(
        metric=metric,
        split=metrics["split"],
        rows=metrics["rows"],
        confidence=metrics["confidence"],
        model=model,
        baselines=tuple(baselines),
        outcome=outcome,
        verdict=VERDICTS[outcome] if baselines else "No baseline to compare with.",
        reason=reason,
    )


def _judge(
    metric: str,
    metrics: Any,
    model: Estimate,
    baselines: list[Estimate],
    comparison: dict[str, Any] | None,
) -> tuple[Outcome, str]:
    """Outcome, and exactly what was compared."""
    if not baselines:
        return "unknown", "No baseline has this metric."
    difference = comparison["difference"][metric] if comparison else {}
    value, low, high = (difference.get(key) for key in ("value", "low", "high"))
    compared = f"{text.heading(metric)} {model} against {baselines[0]} of {baselines[0].name}"
    if comparison is None or value is None or low is None or high is None:
        return "unknown", f"{compared}: a number is missing."
    outcome: Outcome = "better" if low > 0 else "worse" if high < 0 else "open"
    meaning = {
        "better": "which excludes 0",
        "worse": "which excludes 0",
        "open": "which includes 0, so it may be chance",
    }[outcome]
    level = f"{100 * metrics['confidence']:g}%"
    test = comparison["mcnemar"]
    difference_is = (
        f"{compared}. On the same rows the difference is {text.signed(value)}, its {level} "
        f"interval {text.signed(low)} to {text.signed(high)} (paired bootstrap), {meaning}."
    )
    if test is None:
        return outcome, difference_is
    apart = (outcome != "open") != (test["p_value"] < 1 - metrics["confidence"])
    why = "Near the border the interval and this test may disagree, as here."
    if metric != "accuracy":
        why = "The test counts rows that are wholly right, which is another measure."
    border = f" {why}" if apart else ""
    return outcome, (
        f"{difference_is} Rows that the fine-tuned model alone predicts rightly: "
        f"{text.count(test['first_only'])}; the baseline alone: "
        f"{text.count(test['second_only'])} (McNemar's exact test: "
        f"{text.p_value(test['p_value'])}).{border}"
    )
