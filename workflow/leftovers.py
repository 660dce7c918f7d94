"""Half-copied files, which a full disk or a kill leaves in the cache and DVC never removes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dvc.repo import Repo

DAY = 24 * 3600


def remove(repo: Repo) -> None:
    """Under the lock of the project, so that nobody in it is copying just now. Other projects may
    copy into a cache outside of it: there, what has been left for a day goes."""
    cache = Path(repo.cache.local.path)
    age = 0 if cache.is_relative_to(repo.root_dir) else DAY
    for file in [*cache.glob("*.tmp"), *cache.glob("??/*.tmp")]:
        if file.stat().st_mtime <= time.time() - age:
            file.unlink(missing_ok=True)
            print(f"{file.name}: a half-copied file, removed from the cache", flush=True)
