"""The recipes in workflow/recipes/, brought in step with params.yaml.

Run: `python -m workflow recipe`, after a change of the keys or comments of params.yaml.

A recipe is a whole params.yaml. What it chooses stays: its first comment, and each value that it
has. Keys that it lacks are added with the value of params.yaml, keys that are no more are removed,
comments are those of params.yaml.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from stages.artifacts import write_text
from stages.errors import UserError
from workflow.editing import round_trip

FOLDER = Path("workflow/recipes")
WHOLE = {("fetch_model", "sha256"), ("sweep", "parameters")}  # mappings with keys of the user's


def main(arguments: list[str]) -> int:
    """Write every recipe anew, and name those that changed.

    Raises:
        UserError: an argument is given.
    """
    if arguments:
        raise UserError(f"python -m workflow recipe: takes no argument, got {arguments[0]!r}")
    shipped = Path("params.yaml").read_text(encoding="utf-8")
    for file in sorted(FOLDER.glob("*.yaml")):
        before = file.read_text(encoding="utf-8")
        after = in_step(before, shipped)
        if after != before:
            write_text(file, after)
            print(f"{file}: written")
    return 0


def in_step(recipe: str, shipped: str) -> str:
    """The text of a recipe with the keys and comments of params.yaml as shipped, and the values
    and the first comment of its own."""
    yaml = round_trip()
    content = yaml.load(shipped)
    _choose(content, yaml.load(recipe), ())
    out = io.StringIO()
    yaml.dump(content, out)
    body = out.getvalue().removeprefix(_head(shipped)).lstrip("\n")
    # Where a mapping is replaced, the empty line behind it goes with it.
    return _head(recipe) + "\n" + re.sub(r"(?<=[^\n]\n)(?=\w)", "\n", body)


def _choose(content: Any, own: Any, path: tuple[str, ...]) -> None:
    """Put the values of `own` in the place of those of `content`."""
    for key in content:
        if key not in own:
            continue
        value, here = own[key], (*path, key)
        if here not in WHOLE and isinstance(content[key], dict) and isinstance(value, dict):
            _choose(content[key], value, here)
        elif content[key] != value:
            content[key] = value


def _head(text: str) -> str:
    """The comment that a file begins with."""
    lines = text.splitlines(keepends=True)
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:end])
