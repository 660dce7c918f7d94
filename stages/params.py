"""Typed sections of params.yaml: the base class, the run section, and the texts of errors.

Each stage, task and method declares its own section, a subclass of `Section`, in its own
file; `stages/check.py` puts them together.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.errors import UserError, did_you_mean


class Section(BaseModel):
    """A part of params.yaml: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class RunSection(Section):
    """params.yaml: run"""

    task: str = Field(description="file name of a task in stages/tasks/")
    method: str = Field(description="file name of a method in stages/methods/")


@dataclass(frozen=True)
class Run:
    """What a stage may use beside its own section: the plug-ins chosen and their sections.

    `task` and `method` are the modules `stages.tasks.<name>` and `stages.methods.<name>`
    (see `stages.tasks.base.Task` and `stages.methods.base.Method`).
    """

    task_name: str
    method_name: str
    task: Any
    method: Any
    task_params: Any
    method_params: Any
    tracking: Any


def read(path: Path) -> dict[str, Any]:
    """A mapping in YAML 1.2, by the reader that DVC uses, so that both see the same values (1e-4
    is a number).

    Raises:
        UserError: the file is missing, no text, no YAML or no mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run from the project's root folder") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); write a file there") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        what = " ".join(str(error.problem).split())
        raise UserError(f"{path}{where}: not YAML: {what}; mend that line") from None
    except YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: no sections, got {content!r}; restore it with git")
    return content


def problems(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """Pydantic's errors as lines of the form
    `params.yaml: <path>: <what is wrong>, got <value>; <what to write>`."""
    return [_line(item, model, prefix) for item in error.errors()]


def _line(item: Mapping[str, Any], model: type[BaseModel], prefix: str) -> str:
    location = [str(part) for part in item["loc"] if not _is_union_tag(part)]
    path = ".".join([prefix, *location] if prefix else location)
    kind, context = item["type"], item.get("ctx", {})
    value = item.get("input")
    got = "" if isinstance(value, Mapping | BaseModel) else f", got {value!r}"
    if kind == "extra_forbidden":
        return f"params.yaml: {path}: unknown key{got}; {_known_key(model, location)}"
    if kind == "missing":
        return f"params.yaml: {path}: missing; write a value for it"
    if kind == "literal_error":
        choices = [
            word.strip("' ") for word in context["expected"].replace(" or ", ", ").split(",")
        ]
        return f"params.yaml: {path}: not a known value{got}; {did_you_mean(value, choices)}"
    if kind == "value_error":  # raised by a validator of ours: "what is wrong; what to write"
        wrong, _, write = str(context["error"]).partition("; ")
        if not got and ": " in wrong:  # of a whole section: "key: what is wrong, got value"
            key, _, wrong = wrong.partition(": ")
            path = f"{path}.{key}"
        return f"params.yaml: {path}: {wrong}{got}" + (f"; {write}" if write else "")
    message = str(item["msg"])
    advice = message[0].lower() + message[1:]
    advice = advice.replace("input should be", "write").replace("a valid ", "a ")
    advice = advice.replace("a integer", "an integer")
    wrong = "out of range" if kind.startswith(("greater", "less")) else "wrong type or form"
    return f"params.yaml: {path}: {wrong}{got}; {advice}"


def _is_union_tag(part: object) -> bool:
    """Pydantic names the branch of a union ('int', 'literal[...]'); users know no branches."""
    return isinstance(part, str) and (
        part in {"int", "float", "str", "bool", "none"} or part.startswith(("literal[", "list["))
    )


def _known_key(model: type[BaseModel], location: list[str]) -> str:
    """Suggest a key of the innermost section on the way to `location`."""
    current: Any = model
    for part in location[:-1]:
        field = current.model_fields.get(part) if _is_section(current) else None
        if field is None:
            break
        kinds = [field.annotation, *typing.get_args(field.annotation)]
        current = next((kind for kind in kinds if _is_section(kind)), None)
    return did_you_mean(location[-1], current.model_fields if _is_section(current) else [])


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
