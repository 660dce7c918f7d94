"""A study in words and numbers: what its JSON, its page and its lines on a terminal say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stages.reporting.text import count, name, number
from stages.studying import rules
from stages.studying.comparing import Mean, at, best, cheapest, difference
from stages.studying.outcomes import Study


def found(study: Study, tolerance: float, rows: int) -> dict[str, Any]:
    """All of it as JSON.

    Args:
        tolerance: see `rules.judge`.
        rows: that the reader has, for the recommendation.
    """
    return {
        "metric": study.metric,
        "split": "test",
        "test_rows": study.test_rows,
        "sizes": study.sizes,
        "left_out": study.left_out,
        "curves": {
            key: {
                "name": curve.name,
                "trained_parameters": curve.trained,
                "parameters_total": curve.total,
                "examples": {str(size): value for size, value in curve.examples.items()},
                "values": {
                    str(size): asdict(at(curve, size)) | {"each": list(of.values())}
                    for size, of in curve.values.items()
                },
            }
            for key, curve in study.curves.items()
        },
        "best": {str(size): best(study, study.curves, size) for size in study.sizes},
        "cheapest_within_one_error": {str(size): cheapest(study, size) for size in study.sizes},
        "crossings": [asdict(one) for one in rules.crossings(study, tolerance)],
        "rules": [asdict(one) for one in rules.judge(study, tolerance)],
        "recommendation": recommendation(study, rows),
        "notes": notes(study),
    }


def recommendation(study: Study, rows: int) -> dict[str, Any]:
    """For so many rows: by the largest size measured that is not above them."""
    size = max((one for one in study.sizes if one <= rows), default=study.sizes[0])
    method, top = cheapest(study, size), best(study, study.curves, size)
    assert top is not None
    text = f"With {count(rows)} rows: {study.curves[method].name}"
    if method == top:
        text += f", the best that was measured at {count(size)} rows."
    else:
        text += (
            f", the cheapest within one standard error of the best at {count(size)} rows, which "
            f"is {study.curves[top].name}."
        )
    if size > rows:
        text += f" Fewer than {count(size)} were not measured."
    if size == study.sizes[-1] and rows >= 2 * size:
        text += " You have far more rows than were measured: methods still apart may have crossed."
    return {"rows": rows, "measured_at": size, "method": method, "best": top, "text": text}


def notes(study: Study) -> list[str]:
    """What a reader must know of the numbers."""
    runs = sorted({len(of) for curve in study.curves.values() for of in curve.values.values()})
    spread = "–".join(map(str, dict.fromkeys((runs[0], runs[-1]))))
    told = [
        f"{spread} runs of each method and size. Each has its own draw of training rows and seed, "
        "the same for all methods; differences are taken draw by draw. Intervals are 95% by "
        "Student's t over these runs.",
        f"All runs are measured on the same {count(study.test_rows)} test rows, so intervals say "
        "nothing of other test rows"
        + (
            f"; for an accuracy these add up to ±{1.96 * math.sqrt(0.25 / study.test_rows):.3f}."
            if study.metric == "accuracy"
            else "."
        ),
        "Draws of most of the training split share rows, which makes their spread too small.",
        "Of several rules and sizes some would differ by chance: 1 in 20 at this level.",
        "The best epoch is chosen on at most as many validation rows as there are training rows. "
        "Parameters are those of params.yaml for every size; none was searched for.",
    ]
    for method, why in study.refused.items():
        told.insert(0, f"Left out: {method}, for {why}.")
    for method, rows in study.diverged:
        told.insert(0, f"Left out: {method} with {count(rows)} rows, which diverged in a draw.")
    for title in study.incomparable:
        told.insert(0, f"Left out: {title}, which has no {name(study.metric)}.")
    few, all_of = study.curves.get("prompt"), study.curves.get("full")
    both = sorted(few.values.keys() & all_of.values.keys()) if few and all_of else []
    if any(difference(study, "prompt", "full", rows).mean.below(0) for rows in both):
        told.append(
            "Prompt tuning falls behind full training here. It is known to need models of billions "
            "of parameters to equal it (Lester et al., 2021)."
        )
    if study.left_out:
        sizes = ", ".join(map(count, study.left_out))
        told.insert(0, f"Left out, for the training split has fewer rows: {sizes}.")
    return told


def lines(study: Study, content: Mapping[str, Any], minutes: Mapping[str, Mapping[int, float]]
) -> list[str]:  # fmt: skip
    """For a terminal.

    Args:
        minutes: that a run took on this machine, on average, by method and size; where known.
    """
    names = {key: curve.name for key, curve in study.curves.items()}
    width = max(len(title) for title in names.values())
    heads = "".join(f"{count(size):>14}" for size in study.sizes)
    told = [f"{name(study.metric)}, test split, by training rows"]
    told.append(f"{'':{width}}{heads}{'trained':>20}")
    for key, curve in study.curves.items():
        cells = "".join(
            f"{_cell(at(curve, size)) if size in curve.values else '–':>14}" for size in study.sizes
        )
        told.append(f"{names[key]:{width}}{cells}{trained(curve.trained, curve.total):>20}")
    if any(minutes.values()):
        told.append("minutes a run, here")
        for key, of in minutes.items():
            cells = "".join(
                f"{f'{of[size]:.2f}' if size in of else '–':>14}" for size in study.sizes
            )
            told.append(f"{names[key]:{width}}{cells}")
    told.append("cheapest within one standard error of the best")
    told += [
        f"  {count(int(size))} rows: {names[key]}"
        for size, key in content["cheapest_within_one_error"].items()
    ]
    told += [f"{crossing(one)}" for one in content["crossings"]]
    for one in content["rules"]:
        told.append(f"{one['verdict'].upper()}: {one['rule']}")
        told += [f"  {line}" for line in one["evidence"]]
    return [*told, content["recommendation"]["text"], *content["notes"]]


def crossing(one: Mapping[str, Any]) -> str:
    """`fine-tuning overtakes few-shot: from 100 rows by the means; shown from 500`"""

    def size(value: int | None) -> str:
        return "at no size measured" if value is None else f"from {count(value)} rows"

    return f"{one['name']}: {size(one['by_means'])} by the means, {size(one['shown'])} shown"


def trained(parameters: int | None, total: int | None) -> str:
    """`338,690 (1.47%)`, where the whole is known."""
    if parameters is None or not total:
        return count(parameters)
    share = 100 * parameters / total
    told = f"{share:.3g}%" if share >= 1e-4 or not parameters else "under 0.0001%"
    return f"{count(parameters)} ({told})"


def _cell(mean: Mean) -> str:
    half = "" if mean.high is None else f" ±{number(mean.high - mean.value)}"
    return f"{mean.value:.3f}{half}"
