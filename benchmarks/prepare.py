"""Time and peak memory of `prepare` and `check` at three sizes, beside pandas reading the file.

Run: `python -m benchmarks.prepare` (some minutes; let the machine do nothing else). Writes
benchmarks/prepare.json.

Each measurement is a fresh process, start of Python included, in a clone of HEAD; the rows are
drawn by a seed. A round runs each command once, one after the other; a ratio is of two commands of
one round, and its spread is over the rounds.
"""

from __future__ import annotations

import csv
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.artifacts import write_json

ROUNDS = {2_400: 5, 100_000: 5, 1_000_000: 1}  # by rows
OUTPUT = Path("benchmarks/prepare.json")
RAW = "data/raw/rows.csv"
NEAR = 0.8
LABELS = ("negative", "neutral", "positive")
STAGES = (sys.executable, "-m", "stages")
COMMANDS = {
    "pandas.read_csv": (sys.executable, "-c", f"import pandas; pandas.read_csv({RAW!r})"),
    "prepare": (*STAGES, "prepare"),
    "prepare, near duplicates": (*STAGES, "prepare"),
    "check": (*STAGES, "check"),
}


Measured = tuple[float, float, float]
"""Seconds on the clock, seconds on the CPUs (which other programs disturb less), megabytes."""


def main() -> None:
    result: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),  # programs that ran beside it
        "python": sys.version.split()[0],
        "rows": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", ".", folder], check=True)
        clone = Path(folder)
        for count, rounds in ROUNDS.items():
            write_rows(clone / RAW, count)
            found = [measured_round(clone) for _ in range(rounds)]
            size = (clone / RAW).stat().st_size
            result["rows"][count] = {"bytes": size, "rounds": rounds, **summarise(found)}
            print(f"{count:,} rows, {size / 1e6:.1f} MB")
            for name, value in result["rows"][count]["commands"].items():
                ratio = value["times_pandas"]
                print(
                    f"  {name:<25}{value['seconds']['median']:7.2f} s,"
                    f"{value['cpu_seconds']['median']:7.2f} s of CPU,"
                    f"{value['peak_memory_mb']:6.0f} MB,{ratio['median']:6.1f} times pandas "
                    f"({ratio['min']:.1f} to {ratio['max']:.1f})"
                )
    write_json(OUTPUT, result)


def write_rows(path: Path, count: int) -> None:
    """Texts of 5 to 25 words of a Zipf-like vocabulary; one in five has commas and quotes."""
    draw = random.Random(0)
    words = [
        "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=k % 8 + 2)) for k in range(20_000)
    ]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        for _ in range(count):
            text = " ".join(draw.choices(words, cum_weights=weights, k=draw.randint(5, 25)))
            if draw.random() < 0.2:
                text = f'{text.capitalize()}, "they" said'
            writer.writerow([text, draw.choice(LABELS)])


def measured_round(clone: Path) -> dict[str, Measured]:
    found = {}
    for name, command in COMMANDS.items():
        set_params(clone / "params.yaml", NEAR if "near" in name else 0)
        found[name] = measure(clone, command)
    return found


def set_params(path: Path, near: float) -> None:
    yaml = YAML()
    content = yaml.load(path.read_text(encoding="utf-8"))
    content["prepare"] |= {"path": RAW, "keep": [], "near_duplicates": near}
    with path.open("w", encoding="utf-8") as out:
        yaml.dump(content, out)


def measure(folder: Path, command: tuple[str, ...]) -> Measured:
    """Raises SystemExit where the command fails."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def summarise(found: list[dict[str, Measured]]) -> dict[str, Any]:
    commands = {}
    for name in COMMANDS:
        commands[name] = {
            "seconds": spread([one[name][0] for one in found]),
            "cpu_seconds": spread([one[name][1] for one in found]),
            "times_pandas": spread([one[name][0] / one["pandas.read_csv"][0] for one in found]),
            "peak_memory_mb": round(max(one[name][2] for one in found)),
        }
    return {"commands": commands}


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    main()
