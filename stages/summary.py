"""What came out, what ran and what was restored, in the terminal.

Run: `python -m stages summary --mark` before `dvc repro`, `python -m stages summary` after it
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages import artifacts, differing, plugins, runs
from stages.errors import UserError
from stages.reporting import text
from stages.reporting.verdict import Headline, compare, headline

WIDTH = 80
REPORT = "results/report.html"
METRICS = "results/metrics.json"
COLOURS = {"bold": 1, "ran": 36, "restored": 34, "missing": 31, "better": 32}
COLOURS |= {"worse": 31, "open": 33, "unknown": 33}
RATES = {"examples_per_second": "rows a second", "tokens_per_second": "tokens a second"}


def main(argv: list[str]) -> int:
    """Print the summary, or with --mark note what the next one compares with.

    Raises:
        UserError: there is no result yet; what is known of the stages is printed before.
    """
    parser = argparse.ArgumentParser(prog="python -m stages summary", description=__doc__)
    parser.add_argument(
        "--mark", action="store_true", help="note the present state, for the next summary"
    )
    if parser.parse_args(argv).mark:
        artifacts.write_json(runs.MARK, runs.snapshot())
        return 0
    problems: list[str] = []
    try:
        metrics = artifacts.read_json(METRICS)
        baseline = artifacts.read_json("results/baseline.json")
        print(*_result(_headline(metrics, baseline)), "", sep="\n")
    except UserError as error:
        problems = error.problems
    print(*_stages(), sep="\n")
    if Path(REPORT).exists():
        print(f"\nreport: {REPORT}")
    if differences := list(_differences()):
        print("", *differences, sep="\n")
    if problems:
        raise UserError(*problems)
    return 0


def _headline(metrics: Any, baseline: Any) -> Headline:
    """With the paired comparison where the predictions are here; git may hold the metrics only."""
    try:
        comparison = compare(
            plugins.load("tasks", artifacts.read_json("results/training.json")["task"]),
            artifacts.read_json("data/prepared/labels.json"),
            metrics,
            baseline,
            artifacts.read_parquet("results/predictions.parquet"),
            artifacts.read_parquet("results/baseline.parquet"),
        )
    except UserError as error:
        return headline(metrics, baseline, None, error.problems[0])
    return headline(metrics, baseline, comparison)


def _result(head: Headline) -> Iterator[str]:
    """The main metric, the baselines beside it, and what that allows to say."""
    yield from _wrap(
        f"{text.name(head.metric)} {text.number(head.model.value)} ({head.interval}), "
        f"{text.count(head.rows)} rows of the {head.split} split",
        "bold",
    )
    for one in (head.model, *head.baselines):
        yield f"  {text.clip(one.name, 44):<46}{one}"
    yield from _wrap(head.verdict, head.outcome)
    yield from _wrap(head.reason)


def _stages() -> Iterator[str]:
    """A line a stage; without a mark, what its last run here took."""
    marked = runs.MARK.exists()
    records = runs.records()
    states: Mapping[str, str] = (
        runs.since(artifacts.read_json(runs.MARK)) if marked else dict.fromkeys(runs.pipeline(), "")
    )
    size = max((len(stage) for stage in states), default=5)
    yield f"{'stage':<{size}}  {'state' if marked else '':<9}  seconds  peak memory"
    total, rates = 0.0, []
    for stage, state in states.items():
        run = records.get(stage) if state in ("ran", "") else None
        line = f"{stage:<{size}}  {_colour(f'{state:<9}', state)}"
        if run:
            total += run["seconds"]
            line += f"  {run['seconds']:7.1f}  {run['peak_memory_mb']:8,.0f} MB"
            line += _expected(run["facts"])
            found = [
                f"{run['facts'][key]:,.0f} {of}" for key, of in RATES.items() if key in run["facts"]
            ]
            rates += [f"{stage}: {', '.join(found)}"] if found else []
        yield line.rstrip()
    yield f"{'total':<{size}}  {'':<9}  {total:7.1f}"
    if not marked:
        yield "No mark: what ran and what was restored is known after `make repro` only."
    yield from rates


def _expected(facts: Mapping[str, Any]) -> str:
    """What was expected of the memory; on a GPU the expectation is of its memory alone."""
    if "estimated_memory_mb" not in facts:
        return ""
    told = f"estimated {facts['estimated_memory_mb']:,.0f} MB"
    if "peak_gpu_memory_mb" in facts:
        told += f", of the GPU's {facts['peak_gpu_memory_mb']:,.0f} MB"
    return f" ({told})"


def _differences() -> Iterator[str]:
    """Stages that gave other bytes than the committed ones for the same inputs, and why."""
    before, now = runs.lock(runs.committed("dvc.lock")), runs.present_lock()
    found = [one for one in differing.differences(before, now) if one.outs and not one.inputs]
    if not found:
        return
    yield "Same inputs, other bytes than in the committed dvc.lock:"
    for one in found:
        yield from _wrap(f"  {one.stage}: {', '.join(one.outs)}")
    yield from _wrap(differing.why())
    yield "`python -m stages explain` says it for every stage."


def _wrap(paragraph: str, colour: str = "") -> list[str]:
    indent = "    " if paragraph.startswith(" ") else ""
    lines = textwrap.wrap(paragraph, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
    return [_colour(line, colour) for line in lines]


def _colour(words: str, colour: str) -> str:
    code = COLOURS.get(colour)
    if code is None or os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return words
    return f"\033[{code}m{words}\033[0m"
