"""Speed and quality of `finetune` beside the Hugging Face Trainer, all else being equal.

    python -m benchmarks.training [PART] [ROUNDS]

Model, rows, batches and threads are the same. PART is full, head_only, evaluation or quality;
without it all four, one after the other. Run it after `dvc repro`; minutes, and up to 10 GB of
memory. Writes its part of benchmarks/training.json.

    full        full fine-tuning, steps of 32 rows
    head_only   3 epochs of the head alone, over a frozen base, from the first step to the last
    evaluation  predictions, from rows of token ids to logits
    quality     accuracy on unseen rows after full fine-tuning, over 5 seeds

Of the first three, every variant is a process of its own, and they take turns: one does its piece
of work while the others wait. So a machine that is busy for a while slows all of them, and a ratio
compares pieces of one round. The first round is not counted. `quality` trains on sentences of
film reviews where ../shared/data has them, else on the project's rows.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contestants import (
    BATCH,
    DYNAMIC,
    EPOCHS,
    LENGTH,
    MARK,
    OURS,
    ROWS,
    STEPS,
    THREADS,
    VARIANTS,
    learn,
    learn_with_trainer,
)
from stages.artifacts import read_arrow, read_json, write_json
from stages.pins import versions

if TYPE_CHECKING:
    import pyarrow as pa

OUTPUT = Path("benchmarks/training.json")
LIBRARIES = ("torch", "transformers", "lightning")
SEEDS, QUALITY_ROWS = 5, 1000
SENTENCES = Path("../shared/data/nltk_sentence_polarity/sentence_polarity.zip")
PARTS = (*VARIANTS, "quality")


def main(parts: list[str], rounds: int) -> None:
    for part in parts:
        found = quality() if part == "quality" else speed(part, rounds)
        before = read_json(OUTPUT) if OUTPUT.exists() else {}
        found["libraries"] = versions(LIBRARIES)
        write_json(OUTPUT, {**{k: v for k, v in before.items() if k in PARTS}, part: found})


def speed(part: str, rounds: int) -> dict[str, Any]:
    """Turn by turn: wall and CPU time of each variant, as a ratio to the first variant's."""
    print(f"{part}, examples a second, and times as fast as the first in wall and in CPU time:")
    runs = {name: start(part, name) for name in VARIANTS[part]}
    seconds: dict[str, list[list[float]]] = {name: [] for name in runs}
    for _ in range(1 + rounds):
        for name, run in runs.items():
            seconds[name].append(turn(run))
    peaks = {name: peak(run) for name, run in runs.items()}
    for run in runs.values():
        run.kill()
        run.wait()
    rows = {"full": STEPS * BATCH, "head_only": 3 * ROWS[part], "evaluation": ROWS[part]}[part]
    first = seconds[next(iter(runs))][1:]
    variants: dict[str, Any] = {}
    for name, own in seconds.items():
        ratios = [[x / y for x, y in zip(*pair, strict=True)]
                  for pair in zip(first, own[1:], strict=True)]  # fmt: skip
        wall, cpu = zip(*ratios, strict=True)
        variants[name] = {
            "examples_per_second": round(statistics.median(rows / w for w, _ in own[1:]), 1),
            "ratio": summary(wall),
            "ratio_of_cpu_time": summary(cpu),
            "peak_memory_mb": peaks[name],
        }
        shown = [variants[name][key]["median"] for key in ("ratio", "ratio_of_cpu_time")]
        print(f"  {name:<54} {variants[name]['examples_per_second']:8.1f} {shown}", flush=True)
    setting = {"rounds": rounds, "rows": ROWS[part], "batch_size": BATCH, "threads": THREADS}
    return {**setting, "variants": variants}


def start(part: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.contestants", part, name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"WANDB_MODE": "disabled"},
    )  # fmt: skip


def turn(run: subprocess.Popen[str]) -> list[float]:
    """Let a variant do its piece of work; its wall and CPU seconds."""
    assert run.stdin and run.stdout
    run.stdin.write("\n")
    run.stdin.flush()
    while not (line := run.stdout.readline()).startswith(MARK):
        if not line:
            sys.exit("benchmarks.training: a variant ended; see its error above")
    return json.loads(line.removeprefix(MARK))


def peak(run: subprocess.Popen[str]) -> int | None:
    """Most memory that a process has had so far, in MB; None where the system does not say."""
    try:
        lines = Path(f"/proc/{run.pid}/status").read_text().splitlines()
    except OSError:
        return None
    return round(int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) / 1024)


def summary(values: tuple[float, ...]) -> dict[str, float]:
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: round(value, 2) for name, value in found.items()}


def quality() -> dict[str, Any]:
    """Accuracy of both after the last epoch, over seeds; the standard error is that of a mean."""
    source, (train, test) = ("sentences", sentences()) if SENTENCES.exists() else ("rows", split())
    found: dict[str, list[float]] = {OURS: [], DYNAMIC: []}
    seconds: dict[str, list[float]] = {OURS: [], DYNAMIC: []}
    for seed in range(SEEDS):
        for name, of in ((OURS, learn), (DYNAMIC, learn_with_trainer)):
            started = time.perf_counter()
            found[name].append(of(train, test, seed))
            seconds[name].append(round(time.perf_counter() - started, 1))
            print(f"quality, seed {seed}: {found[name][-1]:.4f} {name}", flush=True)
    error = {name: statistics.stdev(of) / len(of) ** 0.5 for name, of in found.items()}
    return {
        "trained_on": source,
        "rows": len(train),
        "unseen_rows": len(test),
        "epochs": EPOCHS,
        "accuracy": {name: [round(value, 4) for value in of] for name, of in found.items()},
        "mean": {name: round(statistics.mean(of), 4) for name, of in found.items()},
        "standard_error": {name: round(value, 4) for name, value in error.items()},
        "standard_error_of_difference": round(sum(e**2 for e in error.values()) ** 0.5, 4),
        "seconds": seconds,
    }


def split() -> tuple[pa.Table, pa.Table]:
    train, test = (read_arrow(f"data/tokenized/{name}.arrow") for name in ("train", "test"))
    return train.slice(0, QUALITY_ROWS), test


def sentences() -> tuple[pa.Table, pa.Table]:
    """Sentences of film reviews, labelled by Pang and Lee: 1,000 to train on, 2,000 unseen."""
    import numpy as np
    import pyarrow as pa
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file("data/base/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(LENGTH)
    negative, positive = (lines(SENTENCES, kind) for kind in ("neg", "pos"))
    texts = [*negative, *positive]
    order = np.random.default_rng(0).permutation(len(texts))[: 3 * QUALITY_ROWS]
    encoded = tokenizer.encode_batch([texts[number] for number in order])
    whole = pa.table(
        {
            "input_ids": pa.array([row.ids for row in encoded], pa.large_list(pa.int32())),
            "target": (order >= len(negative)).astype(np.int32),
        }
    )
    return whole.slice(0, QUALITY_ROWS), whole.slice(QUALITY_ROWS)


def lines(archive: Path, kind: str) -> list[str]:
    """The sentences of sentence_polarity.zip that are `neg` or `pos`."""
    with zipfile.ZipFile(archive) as opened:
        text = opened.read(f"sentence_polarity/rt-polarity.{kind}").decode("latin-1")
    return [line.strip() for line in text.split("\n") if line.strip()]


def _arguments(given: list[str]) -> Iterator[Any]:
    known = [word for word in given if word in PARTS]
    numbers = [word for word in given if word.isdigit()]
    if len(known) + len(numbers) != len(given) or len(numbers) > 1 or numbers == ["0"]:
        sys.exit(f"benchmarks.training: got {' '.join(given)}; write a part ({', '.join(PARTS)}), "
                 "a number of rounds from 1, both or none")  # fmt: skip
    yield known or list(PARTS)
    yield int(numbers[0]) if numbers else 5


if __name__ == "__main__":
    main(*_arguments(sys.argv[1:]))
