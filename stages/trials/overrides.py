"""Parameters given on a trial's command line: `finetune.learning_rate=1e-4`.

They stand above params.yaml for this one trial. A key that would change nothing is refused: data
and base are those of the project's own stages, which a trial only reads.
"""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from stages.errors import UserError


def parse(words: Iterable[str]) -> dict[str, Any]:
    """`KEY=VALUE` words as a mapping; a value is YAML, as in params.yaml.

    Raises:
        UserError: a word of another form, or a key given twice.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    found: dict[str, Any] = {}
    problems = []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not all(key.split(".")):
            problems.append(f"trial: not an override, got {word!r}; write KEY=VALUE, as in "
                            "finetune.seed=1")  # fmt: skip
            continue
        if key in found:
            problems.append(f"trial: {key}: given twice; write it once")
        try:
            found[key] = YAML(typ="safe", pure=True).load(text)
        except YAMLError:
            problems.append(f"trial: {key}: not YAML, got {text!r}; quote it")
    if problems:
        raise UserError(*problems)
    return found


def applied(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The content of params.yaml with other values; nothing is changed in place."""
    result = dict(content)
    for key, value in overrides.items():
        first, _, rest = key.partition(".")
        inner = result.get(first)
        inner = inner if isinstance(inner, Mapping) else {}
        result[first] = applied(inner, {rest: value}) if rest else value
    return result


def require_effect(overrides: Iterable[str], task: str, method: str | None) -> None:
    """Check that each key shapes a trial of this task.

    Args:
        method: None: a trial of the baseline.

    Raises:
        UserError: with each that does not.
    """
    tuned = ("finetune", "trial", f"methods.{method}", f"tasks.{task}.loss")
    sections = tuned if method else ("baseline", "trial")
    whose = repr(method) if method else "the baseline"
    problems = []
    for key in overrides:
        if key == "finetune.threads" and method:
            problems.append(f"trial: {key}: is not read by a trial; write trial.threads")
        elif key in ("finetune.devices", "finetune.strategy") and method:
            problems.append(f"trial: {key}: a trial has one device; leave it out")
        elif not key.startswith(tuple(f"{section}." for section in sections)) and not (
            method and key == "run.method"
        ):
            also = ", or run.method" if method else ""
            problems.append(
                f"trial: {key}: changes nothing in a trial by {whose}; write a key below "
                f"{', '.join(sections)}{also}"
            )
    if problems:
        raise UserError(*problems)


def words(overrides: Mapping[str, Any]) -> list[str]:
    """The opposite of `parse`: words for a shell."""
    return [shlex.quote(f"{key}={_flow(value)}") for key, value in overrides.items()]


def as_yaml(overrides: Mapping[str, Any]) -> str:
    """The sections of params.yaml that hold these values, and nothing else."""
    return dumped(applied({}, overrides))


def dumped(content: Mapping[str, Any]) -> str:
    """A nested mapping as YAML, in its order."""
    from ruamel.yaml import YAML

    text = io.StringIO()
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = False, 1000
    yaml.sort_base_mapping_type_on_output = False
    yaml.representer.ignore_aliases = lambda _: True
    yaml.dump(content, text)
    return text.getvalue()


def _flow(value: Any) -> str:
    """A value as YAML on one line. JSON is that, and writes floats so that they read back."""
    return value if isinstance(value, str) and value.isidentifier() else json.dumps(value)
