"""The model card: metadata as the hub reads it, then a page for people (card.md.j2)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stages.artifacts import read_json
from stages.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

TEXT = '"a text"'
TEMPLATE = Path(__file__).with_name("card.md.j2")
FILES = ("base", "baseline", "data", "metrics", "tokens", "training")
SOURCES = {
    "package": "an installed Python package",
    "folder": "a local folder",
    "cache": "the Hugging Face cache",
    "hub": "the Hugging Face hub",
}
HUB_METRICS = {"macro_f1": "f1", "mcc": "matthews_correlation", "pr_auc": "average_precision"}
"""Metrics that the hub knows by another name than this project."""


def read() -> dict[str, Any]:
    """What the other stages say of the model, by the name of the file under results/.

    Raises:
        UserError: files are missing; all of them are named.
    """
    found: dict[str, Any] = {}
    problems = []
    for name in FILES:
        try:
            found[name] = read_json(f"results/{name}.json")
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return found


def asked(task: Any, roles: Sequence[str], *, completes: bool = False) -> str:
    """What the example of the model's use is given, as Python.

    Args:
        completes: the model goes on with texts, rather than answer what it is asked.
    """
    if completes:
        return '"the first words of a text"'
    if task.GENERATIVE:
        return '[{"role": "user", "content": "a prompt"}]'
    return '{"text": "a text", "text_pair": "another"}' if "text_pair" in roles else TEXT


@dataclass(frozen=True)
class Use:
    """How the folder is used, for the card's example.

    plain: transformers loads it as it is. asked: what the example is given, as Python. loaded_as:
    of a folder that peft knows, the class of its base.
    """

    plain: bool = True
    asked: str = TEXT
    loaded_as: str | None = None


PIPELINE = Use()


def base_repo(params: Any, base: Mapping[str, Any]) -> str | None:
    """The base's repo on the hub: what was fetched by its name goes before what is said of it."""
    named = base["source"] in ("cache", "hub")
    repo: str | None = base["name"] if named else params.base_model
    return repo


def render(
    params: Any,
    task: Any,
    labels: list[str],
    results: Mapping[str, Any],
    how: Use = PIPELINE,
    learnt: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> str:
    """The card's text.

    Args:
        params: section `export`.
        task: the task's module.
        results: as `read` gives them.
        how: the folder is used.
        learnt: what the answers take beside the weights; see stages/tasks/base.py.
    """
    import jinja2

    base, measured = results["base"], results["metrics"]
    repo = base_repo(params, base)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"inline": _inline, "code": _code}
    training = results["training"]
    words = {
        **training["device_class"],
        "threads": f"{training['device_class']['threads']} threads",
    }
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **params.model_dump(),
        card_data=metadata(params, task, repo, measured).to_yaml().strip(),
        plain=how.plain,
        asked=how.asked,
        loaded_as=how.loaded_as,
        base=base,
        base_repo=repo,
        source=SOURCES[base["source"]],
        data=results["data"],
        task=training["task"].replace("_", " "),
        hub_task=task.HUB_TASK,
        windowed=task.WINDOWED,
        labels=labels,
        decision=task.decision(learnt),
        max_length=results["tokens"]["max_length"],
        rows=measured["rows"],
        split=measured["split"],
        samples=measured["bootstrap"],
        seed=measured["seed"],
        confidence=f"{100 * measured['confidence']:g}%",
        metrics=list(_table(measured, results["baseline"]["baselines"])),
        baselines=list(results["baseline"]["baselines"]),
        training=training,
        method=training["method"],
        device=", ".join(map(str, words.values())),
        settings=list(_flat(training["parameters"])),
    )


def metadata(params: Any, task: Any, repo: str | None, measured: Any) -> ModelCardData:
    """The front matter. A base that is not on the hub is named in the text alone, for
    `base_model` is a link."""
    from huggingface_hub import EvalResult, ModelCardData

    single = {name: one for name, one in measured["metrics"].items() if _has_value(one)}
    results = [
        EvalResult(
            task_type=task.HUB_TASK,
            dataset_type=params.datasets[0] if params.datasets else "private",
            dataset_name=params.datasets[0] if params.datasets else "the project's own rows",
            dataset_split=measured["split"],
            metric_type=HUB_METRICS.get(name, name),
            metric_name=name.replace("_", " "),
            metric_value=round(one["value"], 4),
        )
        for name, one in single.items()
    ]
    return ModelCardData(
        license=params.license,
        base_model=repo,
        datasets=params.datasets or None,
        pipeline_tag=task.HUB_TASK,
        library_name="transformers",
        metrics=sorted({HUB_METRICS.get(name, name) for name in single}),
        model_name=params.name,
        eval_results=results,
    )


def _has_value(metric: Any) -> bool:
    return isinstance(metric, dict) and metric.get("value") is not None


def _table(measured: Mapping[str, Any], baselines: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, metric in measured["metrics"].items():
        if _has_value(metric):
            lower = name in measured.get("lower_is_better", ())
            yield {
                "name": name.replace("_", " ") + (", lower is better" if lower else ""),
                "model": _interval(metric),
                "baselines": [_interval(one.get(name)) for one in baselines.values()],
            }


def _interval(metric: Any) -> str:
    if not _has_value(metric):
        return "–"
    if metric.get("low") is None or metric.get("high") is None:
        return f"{metric['value']:.3f}"
    return f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, "null" if value is None else str(value)


def _inline(text: str) -> str:
    """One line that is text alone: nothing of the user's words is markup or breaks a table."""
    line = " ".join(str(text).split())
    for mark in "\\`*_[]<>|#":
        line = line.replace(mark, f"\\{mark}")
    return line


def _code(text: str) -> str:
    """A code span that holds any text, in a table or not."""
    line = " ".join(str(text).split()).replace("|", "\\|")
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{line}{space}{fence}"
