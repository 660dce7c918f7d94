"""The present results beside those of a git revision: metrics, a paired test, and what differs.

Run: `python -m workflow compare REV`, REV being a commit, branch or tag.

Metrics stand as each state recorded them. The difference is that of the rows which both have in
their test split, under one label, measured by the present code: its interval is the paired
bootstrap's, the p-value that of McNemar's exact test.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stages import measures, plan, plugins, runs, statistics
from stages.errors import UserError
from workflow import results
from workflow.results import Results

WIDTH = 80
PIN = "tool.pins."


def main(arguments: list[str]) -> int:
    """Print the comparison.

    Raises:
        UserError: there is nothing to compare with; or, after all that can be compared is
            printed, why the predictions cannot be.
    """
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise UserError(
            "python -m workflow compare: takes one revision, got "
            f"{' '.join(arguments) or 'none'}; write a commit, branch or tag"
        )
    now, then = results.present(), results.at(arguments[0])
    both: list[dict[str, Any]] = []
    problems: list[str] = []
    for one in (now, then):  # all that is missing is said at once
        try:
            both.append(one.metrics)
            one.data  # noqa: B018
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    paired: dict[str, Any] | None = None
    try:
        paired = pair(now, then)
    except UserError as error:
        problems = error.problems
    print(*told(now, then, paired), sep="\n")
    if problems:
        raise UserError(*problems)
    return 0


def pair(now: Results, then: Results) -> dict[str, Any]:
    """`stages.statistics.paired` of the rows that both have, and their counts: `rows` in common,
    `now` and `then` of each, `relabelled` of those in common whose label changed.

    Raises:
        UserError: the two cannot be paired.
    """
    import numpy as np

    _same_question(now, then)
    task = plugins.load("tasks", str(now.task))
    first, second = now.predictions(), then.predictions()
    joined = first.merge(second, on="id", suffixes=("", "_then"), validate="one_to_one")
    same = joined[joined[task.TARGET] == joined[f"{task.TARGET}_then"]]
    if same.empty:
        raise UserError(
            f"{then.name}: no row of its test split is in the present one under the same label; "
            "predictions cannot be paired"
        )
    measured = now.metrics
    found = statistics.paired(
        measures.of(task),
        task.targets(same, now.labels),
        np.stack(same["scores"].to_list()),
        np.stack(same["scores_then"].to_list()),
        measured["bootstrap"],
        measured["seed"],
        task.right,
    )
    counts = {"rows": len(same), "now": len(first), "then": len(second)}
    return {**found, **counts, "relabelled": len(joined) - len(same)}


def _same_question(now: Results, then: Results) -> None:
    if now.task != then.task:
        raise UserError(
            f"{then.name}: another task, {then.task}, where now it is {now.task}; predictions "
            "cannot be paired"
        )
    if now.labels != then.labels:
        only = [
            f"only {name}: {', '.join(map(repr, labels))}"
            for name, labels in (
                ("now", [label for label in now.labels if label not in then.labels]),
                ("then", [label for label in then.labels if label not in now.labels]),
            )
            if labels
        ]
        raise UserError(
            f"{then.name}: other labels ({'; '.join(only) or 'in another order'}); predictions "
            "cannot be paired"
        )


def told(now: Results, then: Results, paired: Mapping[str, Any] | None) -> Iterator[str]:
    """The lines of the comparison, at most `WIDTH` wide."""
    yield from _wrapped("now   ", now.about)
    yield from _wrapped("then  ", f"{then.name}: {then.about}" if then.about else then.name)
    stale = [step.stage for step in plan.plan(runs.read_yaml("params.yaml")) if step.state == "run"]
    if stale:
        yield from _wrapped(
            "note  ", f"the present results are not up to date: `dvc repro` would run {stale[0]}"
        )
    yield ""
    yield from _metrics(now.metrics, then.metrics, paired)
    if paired:
        yield from _verdict(now.metrics["main_metric"], paired)
    for name, lines in {
        "parameters": _params(now, then),
        "data": _data(now, then),
        "code": _code(now, then),
        "libraries": _libraries(now, then),
    }.items():
        found = list(lines)
        yield ""
        yield f"{name}" if found else f"{name}: no difference"
        for line in found:
            yield from _wrapped("  ", line)


def _metrics(
    now: Mapping[str, Any], then: Mapping[str, Any], paired: Mapping[str, Any] | None
) -> Iterator[str]:
    difference = paired["difference"] if paired else {}
    both = {"now": now, "then": then}
    names = [
        name
        for name in dict.fromkeys([*now["metrics"], *then["metrics"]])
        if isinstance(now["metrics"].get(name, {}), dict)
        and isinstance(then["metrics"].get(name, {}), dict)
    ]
    level = f"{100 * now['confidence']:g}%"
    title = "now - then, same rows" if paired else ""
    yield f"{'metric':<12}{'now':<22}{'then':<22}{title}".rstrip()
    for name in names:
        cells = {key: _estimate(of["metrics"].get(name)) for key, of in both.items()}
        if paired:
            cells["now - then"] = _estimate(difference.get(name), "+")
        yield from _row(name, cells)
    counts = (f"{name} {of['rows']:,}" for name, of in both.items())
    yield from _wrapped(
        "", f"In brackets {level} bootstrap intervals; rows of the test split: {', '.join(counts)}."
    )


def _row(name: str, cells: Mapping[str, str]) -> Iterator[str]:
    """Side by side; each on a line of its own, with what it is, where they are too wide."""
    head = f"{name[:11]:<12}"
    line = (head + "".join(f"{cell:<20}  " for cell in cells.values())).rstrip()
    if len(line) <= WIDTH:
        yield line
        return
    for what, cell in cells.items():
        yield f"{head}{what:<10}  {cell}"
        head = " " * len(head)


def _estimate(value: Mapping[str, Any] | None, sign: str = "") -> str:
    if not value or value.get("value") is None:
        return "-"
    told = _figure(value["value"], sign)
    if value.get("low") is None or value.get("high") is None:
        return told
    return f"{told} [{_figure(value['low'])}, {_figure(value['high'])}]"


def _figure(value: float, sign: str = "") -> str:
    """Three decimals below 10, four digits above, and three where neither tells a number."""
    size = abs(value)
    if value and not 0.0005 <= size < 10_000:
        return f"{value:{sign}.3g}"
    digits = 3 if size < 10 else max(0, 3 - int(math.log10(size)))
    return f"{value:{sign}.{digits}f}"


def _verdict(metric: str, paired: Mapping[str, Any]) -> Iterator[str]:
    rows = f"{paired['rows']:,} rows are in both test splits under one label"
    if paired["relabelled"]:
        rows += f" ({paired['relabelled']:,} more under another one, left out)"
    yield ""
    yield from _wrapped("", rows + ".")
    test = paired["mcnemar"]
    if test is not None:
        yield from _wrapped(
            "",
            f"Right now and wrong then: {test['first_only']:,}; wrong now and right then: "
            f"{test['second_only']:,}; McNemar's exact test: p = {test['p_value']:.2g}.",
        )
    main = paired["difference"].get(metric)
    if not main or main.get("low") is None:
        return
    if main["low"] > 0 or main["high"] < 0:
        better = "higher" if main["value"] > 0 else "lower"
        yield from _wrapped("", f"{metric} is {better} now: the interval leaves out zero.")
    else:
        yield from _wrapped("", f"{metric}: no difference is shown, the interval holds zero.")


def _params(now: Results, then: Results) -> Iterator[str]:
    for key, value, was in plan.changes(now.params, then.params):
        if PIN not in key:
            yield f"{key}: {value}, was {was}"


def _libraries(now: Results, then: Results) -> Iterator[str]:
    for key, value, was in plan.changes(now.params, then.params):
        if PIN in key:
            yield f"{key.removeprefix(PIN)}: {value}, was {was}"


def _data(now: Results, then: Results) -> Iterator[str]:
    new, old = now.data, then.data
    for file in dict.fromkeys([*new["files"], *old["files"]]):
        before, after = (of["files"].get(file) for of in (old, new))
        if before != after:
            shown = (digest[:12] if digest else "not read" for digest in (after, before))
            yield f"{file}: SHA-256 {', was '.join(shown)}"
    for what, of in (
        *((f"rows {name}", ("rows", name)) for name in new["rows"]),
        *((f"{split} rows", ("splits", split, "rows")) for split in new["splits"]),
    ):
        after, before = _within(new, of), _within(old, of)
        if after != before:
            yield f"{what}: {after}, was {before}"
    for path in ("data/base", "data/prepared"):
        if now.deps.get(path) != then.deps.get(path):
            yield f"{path}: other content"


def _within(content: Any, keys: Iterable[str]) -> Any:
    for key in keys:
        content = content.get(key, {})
    return content if content != {} else "none"


def _code(now: Results, then: Results) -> Iterator[str]:
    """Modules, or folders of them, that a stage reads."""
    made = {
        out["path"] for one in (now, then) for e in one.lock.values() for out in e.get("outs", [])
    }
    paths = sorted({*now.deps, *then.deps} - made)
    for path in paths:
        if path.startswith("stages/") and now.deps.get(path) != then.deps.get(path):
            new, gone = path not in then.deps, path not in now.deps
            yield f"{path}: " + ("not read then" if new else "not read now" if gone else "changed")


def _wrapped(head: str, text: str) -> list[str]:
    indent = " " * len(head)
    extra = "  " if head == "  " else ""
    return textwrap.wrap(
        text, WIDTH, initial_indent=head, subsequent_indent=indent + extra, break_on_hyphens=False
    )
