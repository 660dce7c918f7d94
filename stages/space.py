"""Disk space: what the stages that may run will write, against what is free."""

from __future__ import annotations

import configparser
import shutil
from pathlib import Path

CONFIGS = (".dvc/config", ".dvc/config.local")
LINKS = ("reflink", "hardlink", "symlink")


def estimate(base: int, raw: int, tokens: int) -> dict[str, int]:
    """Bytes that each stage writes, at most: the trained weights and the exported model are as
    large as the base, rows compressed are no larger than raw.

    Args:
        base, raw: bytes of the base model's files and of the raw data.
        tokens: of all rows.
    """
    return {
        "fetch_model": base,
        "prepare": raw,
        "tokenize": 4 * tokens,
        "finetune": base,
        "evaluate": raw,
        "export": base,
    }


def problems(need: int) -> list[str]:
    """A line for each place that has less free than will be written there."""
    return [
        f"{place}: too little disk space: {megabytes(free)} free, about {megabytes(size)} are "
        "written there; free some, or move the cache (`dvc cache dir`)"
        for place, (size, free) in places(need).items()
        if free < size
    ]


def places(need: int) -> dict[str, tuple[int, int]]:
    """Where how many bytes are written, and how many are free there: the project's folder, and
    DVC's cache, which holds a copy of each output unless it is told to link."""
    cache, copies = _cache()
    elsewhere = cache.stat().st_dev != Path.cwd().stat().st_dev
    sizes = {".": need * (2 if copies and not elsewhere else 1)}
    if copies and elsewhere:
        sizes[str(cache)] = need
    return {place: (size, shutil.disk_usage(place).free) for place, size in sizes.items() if size}


def megabytes(size: int) -> str:
    """`550 MB`, `1.2 GB`"""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def _cache() -> tuple[Path, bool]:
    """The folder of DVC's cache that exists already, and whether outputs are copied there."""
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(CONFIGS, encoding="utf-8")
    except configparser.Error:  # DVC itself says what is wrong with it
        return Path.cwd(), True
    folder = (Path(".dvc") / config.get("cache", "dir", fallback="cache")).resolve()
    kind = config.get("cache", "type", fallback="copy").split(",")[0].strip().strip("\"'")
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return existing, kind not in LINKS
