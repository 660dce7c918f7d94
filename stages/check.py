"""params.yaml as a whole: its parts put together from the files that own them, and checked."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError, create_model

from stages import plugins, positions
from stages.artifacts import write_json
from stages.errors import UserError
from stages.params import Run, RunSection, Section, problems, read
from stages.trials.overrides import applied

SCHEMA = Path("workflow/schemas/params.schema.json")
STAGES = (
    "fetch_model",
    "prepare",
    "tokenize",
    "finetune",
    "evaluate",
    "baseline",
    "export",
    "report",
)
BESIDE = (
    "trial",
    "sweep",
)  # stages that other dvc.yaml files run, many times with other parameters

PRETRAIN = Path("workflow/pretrain/params.yaml")
PRETRAIN_STAGES = ("pretrain_tokenize", "pretrain")  # of a pipeline with parameters of its own


@dataclass(frozen=True)
class Params:
    """params.yaml, valid: one section a stage, and the plug-ins that `run` names."""

    sections: dict[str, Any]
    run: Run


def section_class(stage: str) -> type[Section]:
    """The class of a stage's section: the stage's name in CamelCase, in the stage's module."""
    module = importlib.import_module(f"stages.{stage}")
    return getattr(module, "".join(word.capitalize() for word in stage.split("_")))


def tracking() -> type[Section]:
    """The class of the section that belongs to no stage."""
    from stages.training.loggers import Tracking

    return Tracking


def model() -> type[Section]:
    """The class of the whole params.yaml, put together from the files that own its parts."""

    def section(name: str, kinds: dict[str, Any]) -> type[Section]:
        fields: Any = {key: (kind, ...) for key, kind in kinds.items()}
        return create_model(name, __base__=Section, **fields)

    def group(kind: plugins.Kind) -> type[Section]:
        return section(
            kind.capitalize(),
            {name: plugins.load(kind, name).Params for name in plugins.names(kind)},
        )

    fields: dict[str, Any] = {"run": RunSection}
    fields |= {stage: section_class(stage) for stage in (*STAGES, *BESIDE)}
    fields |= {"tracking": tracking(), "tasks": group("tasks"), "methods": group("methods")}
    return section("Params", fields)


def load(
    path: str | Path = "params.yaml", overrides: Mapping[str, Any] = MappingProxyType({})
) -> Params:
    """Read and check the parameters.

    Args:
        overrides: values by dotted key, which stand above those of the file.

    Raises:
        UserError: with every problem found.
    """
    params, found = examine(path, overrides)
    if found:
        raise UserError(*found)
    return params


def examine(
    path: str | Path = "params.yaml", overrides: Mapping[str, Any] = MappingProxyType({})
) -> tuple[Params, list[str]]:
    """What is valid of the parameters, None standing for each part that is not, and every
    problem.

    Args:
        overrides: see `load`.

    Raises:
        UserError: the file cannot be read at all.
    """
    content = applied(read(Path(path)), overrides)
    found: list[str] = []
    try:
        model().model_validate(content)
    except ValidationError as error:
        found += problems(error, model())
    chosen = _mapping(content, "run")
    loaded: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for kind, key in (("tasks", "task"), ("methods", "method")):
        if isinstance(name := chosen.get(key), str):
            try:
                loaded[key] = plugins.load(kind, name)  # type: ignore[arg-type]
            except UserError as error:
                found += error.problems
            else:
                own[key] = _valid(loaded[key].Params, _mapping(content, kind).get(name))
    if len(loaded) == 2 and (reason := loaded["method"].refuses(chosen["task"])):
        found.append(
            f"params.yaml: run.method: {chosen['method']!r} does not support the task "
            f"{chosen['task']!r}: {reason}; change run.method or run.task"
        )
    sections = {name: _valid(section_class(name), content.get(name)) for name in (*STAGES, *BESIDE)}
    found += combinations(sections)
    run = Run(
        task_name=chosen.get("task", ""),
        method_name=chosen.get("method", ""),
        task=loaded.get("task"),
        method=loaded.get("method"),
        task_params=own.get("task"),
        method_params=own.get("method"),
        tracking=_valid(tracking(), content.get("tracking")),
    )
    return Params(sections, run), found


def refused(overrides: Mapping[str, Any]) -> str | None:
    """Why the method of params.yaml, or of `overrides`, cannot do the task; None where it can, and
    where `examine` has more to say."""
    chosen = _mapping(applied(read(Path("params.yaml")), overrides), "run")
    try:
        method = plugins.load("methods", str(chosen.get("method")))
        plugins.load("tasks", str(chosen.get("task")))
    except UserError:
        return None
    return method.refuses(str(chosen["task"]))


def _valid(kind: type[Section], value: object) -> Any:
    try:
        return kind.model_validate(value)
    except ValidationError:
        return None


def _mapping(content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def combinations(sections: dict[str, Any]) -> list[str]:
    """What no section can see alone."""
    from stages import fetch_model

    base, tokenize, export = (sections[name] for name in ("fetch_model", "tokenize", "export"))
    found = []
    config = fetch_model.local_config(base) if base and tokenize else None
    limit = positions.limit(config) if config else None
    if limit is not None and tokenize.max_length > limit:
        found.append(
            f"params.yaml: tokenize.max_length: the base has {limit} positions, "
            f"got {tokenize.max_length}; write at most {limit}"
        )
    named = base and base.source in ("cache", "hub")
    if named and export and export.base_model not in (None, base.repo):
        found.append(
            f"params.yaml: export.base_model: fetch_model.repo is {base.repo!r}, got "
            f"{export.base_model!r}; write null"
        )
    return found


def load_pretrain(path: Path = PRETRAIN) -> dict[str, Any]:
    """The sections of the pipeline that pretrains, by stage.

    Raises:
        UserError: with every problem found.
    """
    fields: Any = {stage: (section_class(stage), ...) for stage in PRETRAIN_STAGES}
    whole = create_model("PretrainParams", __base__=Section, **fields)
    try:
        valid = whole.model_validate(read(path))
    except ValidationError as error:
        lines = problems(error, whole)
        raise UserError(
            *(line.replace("params.yaml", path.as_posix(), 1) for line in lines)
        ) from None
    return {stage: getattr(valid, stage) for stage in PRETRAIN_STAGES}


def schema() -> dict[str, Any]:
    """JSON schema of params.yaml, for editors and for the Snakefile."""
    return model().model_json_schema()


def write_schema() -> None:
    """Write the JSON schema to workflow/schemas/."""
    write_json(SCHEMA, schema())
