"""The result at a glance: the main metric beside each baseline, and what that allows to say.

The report and `python -m stages summary` print the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stages.reporting import text

Outcome = Literal["better", "open", "not better", "worse", "unknown"]


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

    @property
    def complete(self) -> bool:
        return None not in (self.value, self.low, self.high)


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


def estimates(metric: str, model: str, metrics: Any, baseline: Any) -> tuple[Estimate, ...]:
    """A metric of the fine-tuned model, then of each baseline that has it, best first.

    Args:
        metric: name, as in the files; higher is better.
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
    others.sort(key=lambda one: float("-inf") if one.value is None else one.value, reverse=True)
    return estimate(model, metrics["metrics"].get(metric, {})), *others


def headline(metrics: Any, baseline: Any) -> Headline:
    """The main metric, and whether fine-tuning beats the best baseline.

    The judgement compares two intervals that the bootstrap gave each model alone. Intervals
    that do not overlap show a difference; overlapping ones leave it open.
    """
    metric = metrics["main_metric"]
    model, *baselines = estimates(metric, "fine-tuned", metrics, baseline)
    level = f"{100 * metrics['confidence']:g}%"
    outcome, verdict, reason = _compare(text.name(metric), level, model, baselines)
    sizes = [(of["rows"], of["split"], of["confidence"]) for of in (metrics, baseline)]
    if baselines and sizes[0] != sizes[1]:
        outcome, verdict = "unknown", "Not comparable with the baselines."
        reason = "Measured on " + ", the baselines on ".join(
            f"{text.count(rows)} rows of the {split} split ({100 * share:g}% intervals)"
            for rows, split, share in sizes
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
        verdict=verdict,
        reason=reason,
    )


def _compare(
    metric: str, level: str, model: Estimate, baselines: list[Estimate]
) -> tuple[Outcome, str, str]:
    """Outcome, the verdict in one short sentence, and exactly what was compared."""
    if not baselines:
        return "unknown", "No baseline to compare with.", "No baseline has this metric."
    best = baselines[0]
    compared = f"{metric} {model} against {best} of {best.name}"
    if not (model.complete and best.complete):
        return (
            "unknown",
            "Not comparable with the best baseline.",
            f"{compared}: a number is missing.",
        )
    ends = (model.value, model.low, model.high, best.value, best.low, best.high)
    value, low, high, other, other_low, other_high = (float(end or 0) for end in ends)
    apart = f"the two {level} intervals do not overlap."
    overlap = f"the two {level} intervals overlap, so "
    if low > other_high:
        return "better", "Better than the best baseline.", f"{compared}: {apart}"
    if high < other_low:
        return "worse", "Worse than the best baseline.", f"{compared}: {apart}"
    if value > other:
        tail = f"{overlap}the lead of {value - other:.3f} may be chance."
        return "open", "Not shown to be better than the best baseline.", f"{compared}: {tail}"
    tail = f"{overlap}the two cannot be told apart."
    return "not better", "Not better than the best baseline.", f"{compared}: {tail}"
