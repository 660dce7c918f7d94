"""The pinned versions of the libraries that shape outputs: pyproject.toml, [tool.pins].

dvc.yaml names them as parameters of the stages that they shape, so a new version reruns those
and no other.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from stages.errors import UserError

PROJECT = Path("pyproject.toml")


def versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions by name, without a build's local part (`2.13.0+cpu` is 2.13.0)."""
    return {name: metadata.version(name).partition("+")[0] for name in names}


def require(names: Iterable[str], method: str) -> None:
    """Check that what is installed is what is pinned.

    Args:
        method: libraries of one method are pinned in tool.pins.methods.<method>.

    Raises:
        UserError: another version is installed, or none, or there is no pin.
    """
    pins = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["pins"]
    pins = pins | pins["methods"].get(method, {})
    found = []
    for name in names:
        key = f"pyproject.toml: tool.pins.{name}"
        pinned = pins.get(name)
        try:
            installed = versions([name])[name]
        except metadata.PackageNotFoundError:
            installed = "none"
        if pinned is None:
            found.append(f"{key}: missing; write the installed version, {installed!r}")
        elif installed != pinned:
            found.append(
                f"{key}: installed is {installed}, got {pinned!r}; run `make install`, or write "
                f"{installed!r} (which reruns the stages that it shapes)"
            )
    if found:
        raise UserError(*found)
