"""Snakemake beside `dvc repro`: stages side by side, what a stage costs, and a run of nothing.

Run: `python -m benchmarks.parallel` (about four minutes; let the machine do nothing else). Writes
benchmarks/parallel.json.

A stage of the matrix counts for about five seconds on one core: fixed work, so that cores that are
shared take longer instead of hiding it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stages.artifacts import write_json
from tests import bridge
from tests.bridge import Copy

OUTPUT = Path("benchmarks/parallel.json")
SECONDS, STAGES, EMPTY, CORES, ROUNDS = 5, 16, 20, 2, 3
COMMANDS = {"dvc": ("dvc", "repro"), "snakemake": ("snakemake", "--cores", str(CORES))}
FLOOR = {
    "python": "pass",
    "import dvc.repo": "import dvc.repo",
    "import snakemake.cli": "import snakemake.cli",
}


def main() -> None:
    loops = loops_for(SECONDS)
    result: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),  # programs that ran beside it
        "cores": CORES,
    }
    with tempfile.TemporaryDirectory() as folder:
        busy = project(Path(folder) / "busy", STAGES, f"for _ in range({loops}): pass")
        result["matrix"] = matrix(busy)
        result["empty"] = empty(project(Path(folder) / "empty", EMPTY, "pass"))
        result["nothing_to_do"] = nothing(busy)
    write_json(OUTPUT, result)
    print(OUTPUT.read_text())


def loops_for(seconds: float) -> int:
    """Turns of an empty loop of Python in that time on this machine."""
    started, loops = time.perf_counter(), 20_000_000
    for _ in range(loops):
        pass
    return int(loops * seconds / (time.perf_counter() - started))


def project(folder: Path, stages: int, code: str) -> Copy:
    command = f"python -c '{code}'; echo ${{item.n}} > o${{item.n}}"
    matrix = f"matrix: {{n: {list(range(stages))}}}"
    stage = f"{matrix}\n    cmd: \"{command}\"\n    deps: [in.txt]\n    outs: ['o${{item.n}}']\n"
    return bridge.create(folder, {"in.txt": "1\n", "dvc.yaml": f"stages:\n  part:\n    {stage}"})


def timed(copy: Copy, command: tuple[str, ...]) -> float:
    started = time.perf_counter()
    process = copy.start(*command)
    assert process.wait() == 0, command
    return round(time.perf_counter() - started, 2)


def fresh(copy: Copy) -> None:
    copy.shell("rm -rf dvc.lock .dvc/cache o*; git checkout -q .")


def matrix(copy: Copy) -> dict[str, Any]:
    """Each engine once from nothing; `ratio` is how many times as fast Snakemake is."""
    seconds = {}
    for engine, command in COMMANDS.items():
        fresh(copy)
        seconds[engine] = timed(copy, command)
    ratio = round(seconds["dvc"] / seconds["snakemake"], 2)
    return {"stages": STAGES, "seconds_each": SECONDS, "seconds": seconds, "ratio": ratio}


def empty(copy: Copy) -> dict[str, Any]:
    """What a stage costs beside its command, one after the other, the start left out."""
    each = {}
    for engine, command in {**COMMANDS, "snakemake": ("snakemake", "--cores", "1")}.items():
        fresh(copy)
        full, none = timed(copy, command), timed(copy, command)
        each[engine] = round((full - none) / EMPTY, 3)
    return {"stages": EMPTY, "seconds_a_stage": each}


def nothing(copy: Copy) -> dict[str, Any]:
    """The best of some rounds, and the part of it that importing takes."""
    floor = {name: (sys.executable, "-c", code) for name, code in FLOOR.items()}
    commands = floor | COMMANDS
    rounds = [
        {name: timed(copy, command) for name, command in commands.items()} for _ in range(ROUNDS)
    ]
    return {"seconds": {name: min(one[name] for one in rounds) for name in commands}}


if __name__ == "__main__":
    main()
