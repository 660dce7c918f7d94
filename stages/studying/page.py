"""A study as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.reporting import text
from stages.studying import figure
from stages.studying.findings import crossing, trained
from stages.studying.outcomes import Study

FOLDERS = (Path(__file__).parent / "templates", Path(text.__file__).parent / "templates")


def render(study: Study, content: Mapping[str, Any]) -> str:
    """
    Args:
        content: `findings.found`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(FOLDERS, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "count": text.count, "interval": text.interval, "name": text.name, "crossing": crossing
    }  # fmt: skip
    environment.globals["trained"] = trained
    template = environment.get_template("study.html.j2")
    return template.render(found=content, curves=Markup(figure.svg(study)))
