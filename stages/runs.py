"""What is no function of the inputs: how long a stage took, on what, and what ran at all.

It goes to results/run/, which neither git nor DVC tracks. `python -m stages NAME` calls
`record`; `python -m stages summary` reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from stages import artifacts, locks
from stages.errors import UserError

FOLDER = Path("results/run")
MARK = FOLDER / "before.json"
State = Literal["ran", "restored", "unchanged", "missing"]


def record(stage: str, seconds: float, facts: Mapping[str, object]) -> None:
    """Write results/run/<stage>.json: this run's cost, machine and commit, and `facts`.

    `peak_memory_mb` is that of the largest process, this one or a child; `cpu_seconds` is the
    sum over this process and its children.
    """
    cost = _cost()  # before git is asked, which is a child too
    artifacts.write_json(
        FOLDER / f"{stage}.json",
        {
            "stage": stage,
            "finished": datetime.now(UTC).isoformat(),
            "seconds": round(seconds, 3),
            **cost,
            "machine": machine(),
            "commit": _commit(),
            "facts": dict(facts),
        },
    )


def records() -> dict[str, dict[str, Any]]:
    """The last run of each stage on this machine, by stage."""
    return {
        file.stem: artifacts.read_json(file)
        for file in sorted(FOLDER.glob("*.json"))
        if file.name != MARK.name
    }


def snapshot() -> dict[str, Any]:
    """The present time, and what dvc.lock and the outputs that it lists look like now."""
    return {"time": datetime.now(UTC).isoformat(), "stages": _signatures()}


def since(before: Mapping[str, Any]) -> dict[str, State]:
    """For each stage of dvc.yaml: did it run since the snapshot `before`, was it restored
    from DVC's cache, or is it unchanged; `missing` where an output is not there."""
    started = datetime.fromisoformat(before["time"])
    ran = {
        stage
        for stage, run in records().items()
        if datetime.fromisoformat(run["finished"]) > started
    }
    now = _signatures()
    states: dict[str, State] = {}
    for stage in [*pipeline(), *(name for name in now if "@" in name)]:
        present = now.get(stage)
        if present is None or None in present["outs"].values():
            states[stage] = "missing"
        elif stage in ran:
            states[stage] = "ran"
        else:
            same = present == before["stages"].get(stage)
            states[stage] = "unchanged" if same else "restored"
    return states


def pipeline() -> list[str]:
    """The stages of dvc.yaml, in its order; those that a loop makes are only in dvc.lock."""
    stages = read_yaml("dvc.yaml").get("stages") or {}
    return [name for name, stage in stages.items() if not {"foreach", "matrix"} & set(stage)]


def read_yaml(path: str) -> dict[str, Any]:
    """The content of a YAML file of DVC."""
    return _yaml(_read(path), path)


def lock(content: str | None) -> dict[str, Any]:
    """The stages of a dvc.lock; none where there is no lock yet.

    Raises:
        UserError: it has marks of a merge conflict, or is not YAML.
    """
    if content and locks.CONFLICT.search(content):
        raise UserError(locks.conflict("dvc.lock"))
    return _yaml(content, "dvc.lock").get("stages") or {} if content else {}


def present_lock() -> dict[str, Any]:
    """The stages of the dvc.lock in the working tree.

    Raises:
        UserError: it is cut short.
    """
    if not Path("dvc.lock").exists():
        return {}
    content = _read("dvc.lock")
    if locks.torn(content):
        raise UserError(
            "dvc.lock: cut short, as by a kill while DVC wrote it; delete it, and `dvc repro` "
            "finds the results again in the cache, or run `snakemake`, which mends it"
        )
    return lock(content)


def committed(path: str) -> str | None:
    """Content of a file at git's HEAD; None outside git or where HEAD has no such file."""
    return _git("show", f"HEAD:./{path}")


def machine() -> dict[str, Any]:
    """What this process runs on. The GPU is named only where torch is loaded already."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(_cores())
    return {
        "cpu": _cpu(),
        "cores": len(usable),
        "memory_gb": round(memory / 2**30, 1),
        "gpu": gpu,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _cores() -> int:
    return os.cpu_count() or 1


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cost() -> dict[str, float]:
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    return {
        "cpu_seconds": round(sum(of.ru_utime + of.ru_stime for of in (own, children)), 3),
        "peak_memory_mb": round(max(_peak() or own.ru_maxrss, children.ru_maxrss) / unit, 1),
    }


def _peak() -> int | None:
    """Peak memory of this process in kB, on Linux. There, ru_maxrss also counts the process
    that started this one, before it became python: DVC's own size would be the least."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(line[1]) for line in lines), None)


def _commit() -> dict[str, Any] | None:
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {"hash": head.strip(), "dirty": bool(changed)}


def _git(*command: str) -> str | None:
    """Output of git, or None where it fails. It takes no lock: other stages may use git now."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *command],
            capture_output=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")


def _signatures() -> dict[str, dict[str, Any]]:
    """Stage of dvc.lock to its entry's hash and its outputs' signatures."""
    return {
        stage: {
            "entry": _hash(entry),
            "outs": {out["path"]: _signature(Path(out["path"])) for out in entry.get("outs", [])},
        }
        for stage, entry in present_lock().items()
    }


def _signature(path: Path) -> str | None:
    """Changes when a file, or any file of a folder, is replaced or written to. No content is
    read, so a gigabyte of weights costs nothing."""
    if not path.exists():
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stats = [(file.as_posix(), file.stat()) for file in files]
    return _hash([[name, stat.st_mtime_ns, stat.st_size, stat.st_ino] for name, stat in stats])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run from the project's root folder") from None


def _yaml(content: str, path: str) -> dict[str, Any]:
    """Read as plain YAML: stages never import DVC."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(content) or {}
    except YAMLError:
        raise UserError(f"{path}: not YAML; `git checkout {path}` brings it back") from None
