"""Everything that can be refused before it costs: params.yaml as a whole.

Run: `python -m stages check`
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model

from stages import plugins
from stages.artifacts import write_json
from stages.errors import UserError
from stages.params import Run, RunSection, Section, problems, read

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


@dataclass(frozen=True)
class Params:
    """params.yaml, valid: one section a stage, and the plug-ins that `run` names."""

    sections: dict[str, Any]
    run: Run


def section_class(stage: str) -> type[Section]:
    """The class of a stage's section: the stage's name in CamelCase, in the stage's module."""
    module = importlib.import_module(f"stages.{stage}")
    return getattr(module, "".join(word.capitalize() for word in stage.split("_")))


def model() -> type[Section]:
    """The class of the whole params.yaml, put together from the files that own its parts."""
    from stages.training.loggers import Tracking

    def section(name: str, kinds: dict[str, Any]) -> type[Section]:
        fields: Any = {key: (kind, ...) for key, kind in kinds.items()}
        return create_model(name, __base__=Section, **fields)

    def group(kind: plugins.Kind) -> type[Section]:
        return section(
            kind.capitalize(),
            {name: plugins.load(kind, name).Params for name in plugins.names(kind)},
        )

    fields: dict[str, Any] = {"run": RunSection}
    fields |= {stage: section_class(stage) for stage in STAGES}
    fields |= {"tracking": Tracking, "tasks": group("tasks"), "methods": group("methods")}
    return section("Params", fields)


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check the parameters.

    Raises:
        UserError: with every problem found.
    """
    content = read(Path(path))
    found: list[str] = []
    valid: Any = None
    try:
        valid = model().model_validate(content)
    except ValidationError as error:
        found += problems(error, model())
    named = content.get("run")
    chosen: dict[str, Any] = named if isinstance(named, dict) else {}
    loaded = {}
    for kind, key in (("tasks", "task"), ("methods", "method")):
        if isinstance(name := chosen.get(key), str):
            try:
                loaded[key] = plugins.load(kind, name)  # type: ignore[arg-type]
            except UserError as error:
                found += error.problems
    if len(loaded) == 2 and (reason := loaded["method"].refuses(chosen["task"])):
        found.append(
            f"params.yaml: run.method: {chosen['method']!r} does not support the task "
            f"{chosen['task']!r}: {reason}; change run.method or run.task"
        )
    if valid is not None:
        found += combinations(valid)
    if found:
        raise UserError(*found)
    run = Run(
        task_name=valid.run.task,
        method_name=valid.run.method,
        task=loaded["task"],
        method=loaded["method"],
        task_params=getattr(valid.tasks, valid.run.task),
        method_params=getattr(valid.methods, valid.run.method),
        tracking=valid.tracking,
    )
    return Params({name: getattr(valid, name) for name in STAGES}, run)


def combinations(params: Any) -> list[str]:
    """What no section can see alone."""
    from stages import fetch_model

    found = []
    config = fetch_model.local_config(params.fetch_model)
    positions = fetch_model.positions(config) if config else None
    if positions is not None and params.tokenize.max_length > positions:
        found.append(
            f"params.yaml: tokenize.max_length: the base has {positions} positions, "
            f"got {params.tokenize.max_length}; write at most {positions}"
        )
    return found


def schema() -> dict[str, Any]:
    """JSON schema of params.yaml, for editors and for the Snakefile."""
    return model().model_json_schema()


def write_schema() -> None:
    """Write the JSON schema to workflow/schemas/."""
    write_json(SCHEMA, schema())


def main(arguments: list[str]) -> int:
    """`python -m stages check`: exit code 0, or 2 with all problems."""
    if arguments:
        raise UserError(f"python -m stages check: takes no argument, got {arguments[0]!r}")
    params = load()
    print(f"params.yaml: valid; {params.run.task_name} by {params.run.method_name}")
    return 0
