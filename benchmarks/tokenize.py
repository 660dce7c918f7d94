"""Rows a second and peak memory of `tokenize` beside `datasets.map` with the same tokenizer.

Run: `python -m benchmarks.tokenize [ROUNDS]` (some minutes, after `dvc repro`, whose base it
takes; let the machine do nothing else). Writes benchmarks/tokenize.json.

Rows are the sentences of novels where ../shared/data/litbank_fulltexts has them, else the shipped
reviews; where there are too few, later copies have their words rotated, so that no two are alike.
Each measurement is a fresh process; at the smaller size the variants take turns, ROUNDS times (2).
Loading libraries and reading the rows is not counted, tokenizing and writing is.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.prepare import spread
from stages.artifacts import read_parquet, write_json, write_parquet
from stages.pins import versions

OUTPUT = Path("benchmarks/tokenize.json")
NOVELS = Path("../shared/data/litbank_fulltexts/litbank_original_100_books.tar.xz")
SMALL, LARGE = 67_000, 1_000_000
VARIANTS = ("datasets.map", "encode_batch", "tokenize")
LENGTH = 128


def main(rounds: int) -> None:
    result: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),  # programs that ran beside it
        "libraries": versions(("tokenizers", "datasets", "transformers", "pyarrow")),
    }
    with tempfile.TemporaryDirectory() as folder:
        texts = list(itertools.islice(rotated(sentences()), LARGE))
        result["texts"] = "novels" if NOVELS.exists() else "shipped reviews"
        for rows, times in ((SMALL, rounds), (LARGE, 1)):
            write_rows(Path(folder) / f"{rows}.parquet", texts[:rows])
            found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
            for name in VARIANTS * times:
                found[name].append(measured(name, folder, rows))
            result[str(rows)] = {name: summary(found, name) for name in VARIANTS}
            result[str(rows)]["rounds"] = times
            for name in VARIANTS:
                print(f"{rows:>9,} {name:<14}{json.dumps(result[str(rows)][name])}", flush=True)
            write_json(OUTPUT, result)


def sentences() -> Iterator[str]:
    if not NOVELS.exists():
        yield from read_parquet("data/prepared/train.parquet")["text"]
        return
    with tarfile.open(NOVELS) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            if (file := archive.extractfile(member)) and member.name.endswith(".txt"):
                text = " ".join(file.read().decode("utf-8", "replace").split())
                yield from (part for part in re.split(r"(?<=[.!?]) ", text) if len(part) > 10)


def rotated(texts: Iterator[str]) -> Iterator[str]:
    """The texts, then again with the words of each moved on by one, and so on."""
    known = []
    for text in texts:
        known.append(text)
        yield text
    for turn in itertools.count(1):
        for text in known:
            words = text.split()
            first = turn % len(words)
            yield " ".join(words[first:] + words[:first])


def write_rows(path: Path, texts: list[str]) -> None:
    import pandas as pd

    write_parquet(path, pd.DataFrame({"text": texts, "label": "negative"}))


def measured(name: str, folder: str, rows: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tokenize", name, folder, str(rows)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def summary(found: dict[str, list[dict[str, float]]], name: str) -> dict[str, Any]:
    """Ratios are of two measurements of one round, of the time on the CPUs and on the clock."""
    own, first = found[name], found[VARIANTS[0]]
    result: dict[str, Any] = {"peak_memory_mb": max(one["peak_memory_mb"] for one in own)}
    for key in ("rows_a_second", "rows_a_cpu_second"):
        result[key] = round(sorted(one[key] for one in own)[len(own) // 2])
        ratios = [one[key] / other[key] for one, other in zip(own, first, strict=True)]
        result[f"{key}_ratio"] = spread(ratios)
    return result


def measure(name: str, folder: str, rows: int) -> None:
    """In a process of its own: print what tokenizing and writing the rows took."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    source, target = Path(folder) / f"{rows}.parquet", Path(folder) / "out.arrow"
    work = by_map if name == "datasets.map" else by_stage(name == "tokenize")
    call = work(source, target)
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    seconds, own = time.perf_counter() - clock, time.process_time() - cpu
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
    told = {"rows_a_second": rows / seconds, "rows_a_cpu_second": rows / own}
    print(json.dumps(told | {"peak_memory_mb": round(peak)}))


def by_map(source: Path, target: Path) -> Any:
    import datasets
    from transformers import PreTrainedTokenizerFast

    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file="data/base/tokenizer.json")
    data = datasets.Dataset.from_parquet(str(source), cache_dir=f"{source}.cache")
    return lambda: data.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=LENGTH),
        batched=True, cache_file_name=str(target), remove_columns=["text", "label"],
        load_from_cache_file=False,
    )  # fmt: skip


def by_stage(look_up: bool) -> Any:
    from stages import check, tokenize
    from stages.artifacts import write_arrow
    from stages.words import rule

    def prepared(source: Path, target: Path) -> Any:
        run, rows = check.load().run, read_parquet(source)
        tokenizer = tokenize.load_tokenizer(Path("data/base/tokenizer.json"))
        parted = rule(tokenizer) if look_up else None

        def call() -> None:
            table, _ = tokenize.encode(tokenizer, rows, LENGTH, run, ["negative"], parted)
            write_arrow(target, table)

        return call

    return prepared


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
