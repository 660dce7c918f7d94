"""YAML files that people write, changed in place: comments, quotes and the word null stay."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter


class _Representer(RoundTripRepresenter):
    """By itself ruamel writes nothing for null."""


def _null(representer: Any, value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _null)


def round_trip() -> YAML:
    """Loads and dumps such a file."""
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes, yaml.width = True, 4096
    return yaml
