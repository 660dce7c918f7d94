"""Speed of `finetune` beside the Hugging Face Trainer: same data, model, batches and threads.

Run: `python -m benchmarks.training [STEPS]` (some minutes, after `dvc repro`; 10 GB of memory).
Writes benchmarks/training.json.

Every variant is a process of its own, and they take turns: one step each, the others wait. So a
machine that is busy for a while slows all of them, and a ratio compares steps of one turn. The
first steps are not counted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stages.artifacts import read_arrow, write_json
from stages.pins import versions

OUTPUT = Path("benchmarks/training.json")
MARK = "step took "
LIBRARIES = ("torch", "transformers", "lightning")
WARM, BATCH, THREADS, LENGTH, MOST = 2, 32, 2, 128, 50
VARIANTS: dict[str, dict[str, Any]] = {
    "Trainer as run_glue sets it (padded to 128, float32)": {"pad": True},
    "Trainer, dynamic padding, float32": {"pad": False},
    "Trainer, dynamic padding, bfloat16": {"pad": False, "bf16": True},
    "finetune, padded parts": {"precision": "auto", "packed": False},
    "finetune": {"precision": "auto", "packed": True},
}


def main(steps: int) -> None:
    most = MOST - WARM - 1
    if not 1 <= steps <= most:
        sys.exit(f"benchmarks.training: STEPS: out of range, got {steps}; write 1 to {most}")
    runs = {name: start(name) for name in VARIANTS}
    seconds: dict[str, list[list[float]]] = {name: [] for name in VARIANTS}
    for _ in range(WARM + steps):
        for name, run in runs.items():
            seconds[name].append(turn(run))
    for run in runs.values():
        run.kill()
        run.wait()
    first, variants = seconds[next(iter(VARIANTS))][WARM:], {}
    for name, own in seconds.items():
        ratios = [[x / y for x, y in zip(*pair, strict=True)]
                  for pair in zip(first, own[WARM:], strict=True)]  # fmt: skip
        wall, cpu = zip(*ratios, strict=True)
        speed = statistics.median(BATCH / seconds for seconds, _ in own[WARM:])
        variants[name] = {
            "examples_per_second": round(speed, 1),
            "ratio": summary(wall),
            "ratio_of_cpu_time": summary(cpu),
        }
        print(f"{name:<55} {variants[name]['ratio']}")
    setting = {"steps": steps, "batch_size": BATCH, "threads": THREADS}
    write_json(OUTPUT, {**setting, "variants": variants, "libraries": versions(LIBRARIES)})


def start(name: str) -> subprocess.Popen[str]:
    """A variant's process, once it has done its first step."""
    run = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.training", name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"WANDB_MODE": "disabled"},
    )  # fmt: skip
    turn(run)
    return run


def turn(run: subprocess.Popen[str]) -> list[float]:
    """Let a variant do one step; its wall and CPU seconds."""
    assert run.stdin and run.stdout
    run.stdin.write("\n")
    run.stdin.flush()
    while not (line := run.stdout.readline()).startswith(MARK):
        if not line:
            sys.exit("benchmarks.training: a variant ended; see its error above")
    return json.loads(line.removeprefix(MARK))


def summary(values: tuple[float, ...]) -> dict[str, float]:
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: round(value, 2) for name, value in found.items()}


class Turns:
    """In a variant's process: after each step, tell how long it took and wait for the next."""

    def __init__(self) -> None:
        sys.stdin.readline()
        self.start = (time.perf_counter(), time.process_time())

    def end_step(self) -> None:
        now = (time.perf_counter(), time.process_time())
        taken = [end - begin for begin, end in zip(self.start, now, strict=True)]
        print(MARK + json.dumps(taken), flush=True)
        sys.stdin.readline()
        self.start = (time.perf_counter(), time.process_time())


def trainer(pad: bool, bf16: bool = False) -> None:
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    torch.set_num_threads(THREADS)
    turns = Turns()

    class Ticks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.end_step()

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        length = LENGTH if pad else max(map(len, ids))
        padded = [torch.nn.functional.pad(x, (0, length - len(x))) for x in ids]
        mask = torch.stack([torch.arange(length) < len(x) for x in ids]).long()
        labels = torch.tensor([row["target"] for row in rows])
        return {"input_ids": torch.stack(padded), "attention_mask": mask, "labels": labels}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=MOST, per_device_train_batch_size=BATCH,
            learning_rate=1e-4, weight_decay=0.01, report_to="none", save_strategy="no",
            disable_tqdm=True, use_cpu=True, bf16=bf16, remove_unused_columns=False,
        )  # fmt: skip
        model = AutoModelForSequenceClassification.from_pretrained("data/base", num_labels=2)
        rows: Any = read_arrow("data/tokenized/train.arrow").to_pylist()
        Trainer(model, arguments, collate, rows, callbacks=[Ticks()]).train()


def finetune(precision: Any, packed: bool) -> None:
    from stages import check
    from stages.training import fitting, machine, packing
    from stages.training.module import FineTuning

    params = check.load()
    section = params.sections["finetune"].model_copy(
        update={"epochs": 1, "warmup_epochs": 0.0, "batch_size": BATCH}
    )
    found = machine.configure("cpu", precision, THREADS)
    if not packed:
        packing.prepare = lambda _: None  # type: ignore[assignment,misc]
    turns = Turns()
    FineTuning.on_train_batch_end = lambda *_: turns.end_step()  # type: ignore[method-assign,assignment]
    train = read_arrow("data/tokenized/train.arrow")
    rows = train.take(list(range(min(len(train), MOST * BATCH))))
    validation = train.slice(0, BATCH)
    fitting.fit(section, params.run, found, ["negative", "positive"], rows, validation)


if __name__ == "__main__":
    if len(sys.argv) == 1 or sys.argv[1].isdigit():
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
    else:
        how = VARIANTS[sys.argv[1]]
        (trainer if "pad" in how else finetune)(**how)
