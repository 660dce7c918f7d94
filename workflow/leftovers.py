"""Half-written files, which a full disk or a kill leaves and DVC never removes.

All are removed under the lock of the project, so that nobody in it is writing just now.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage

MINUTE, DAY = 60, 24 * 3600
# What DVC copies an output to before it renames it, and what `replacing` leaves.
HALF = re.compile(r"\.[\w-]{22}\.tmp|([\w.-]+\.lock|\.gitignore)\.\d+\.partial")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path`, that takes its place at once when it is written, or goes."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_from_cache(repo: Repo) -> None:
    """What nobody has written to for a minute; in a cache outside of this project, where others
    and their disks may pause, for a day."""
    cache = Path(repo.cache.local.path)
    age = MINUTE if cache.is_relative_to(repo.root_dir) else DAY
    for file in [*cache.glob("*.tmp"), *cache.glob("??/*.tmp")]:
        with suppress(FileNotFoundError):  # it was ready just now
            if file.stat().st_mtime <= time.time() - age:
                file.unlink()
                print(f"{file.name}: a half-copied file, removed from the cache", flush=True)


def remove_beside(stages: list[Stage]) -> None:
    """From the folders of these stages' outputs and dvc.yaml files."""
    folders = {Path(stage.path).parent for stage in stages}
    folders |= {Path(out.fs_path).parent for stage in stages for out in stage.outs}
    for folder in filter(Path.is_dir, folders):
        for file in folder.iterdir():
            if HALF.fullmatch(file.name) and file.is_file():
                file.unlink(missing_ok=True)
