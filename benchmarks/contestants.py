"""The contestants of benchmarks/training.py; each is run in a process of its own, in turns."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stages.artifacts import read_arrow

if TYPE_CHECKING:
    import pyarrow as pa

MARK = "took "
BATCH, THREADS, LENGTH, RATE, HEAD_RATE = 32, 2, 128, 1e-4, 1e-2
STEPS = 6  # of a turn; the Trainer's groups of like length are so many batches of 768 rows
ROWS = {"full": 4 * STEPS * BATCH, "head_only": 640, "evaluation": 640}
EPOCHS = 2  # of `quality`
GLUE = "Trainer as run_glue sets it (padded to 128, float32)"
DYNAMIC = "Trainer, dynamic padding, float32"
OURS = "finetune"
VARIANTS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "full": {
        GLUE: ("trainer", {"pad": True}),
        DYNAMIC: ("trainer", {}),
        "Trainer, grouped by length, float32": ("trainer", {"grouped": True}),
        "Trainer, dynamic padding, bfloat16": ("trainer", {"bf16": True}),
        "Lightning, dynamic padding, float32": ("lightning", {}),
        "finetune, padded parts": ("finetune", {"packed": False}),
        "finetune, float32": ("finetune", {"precision": "float32"}),
        OURS: ("finetune", {}),
    },
    "head_only": {
        GLUE: ("trainer", {"pad": True, "frozen": True}),
        DYNAMIC: ("trainer", {"frozen": True}),
        "finetune, computing the frozen layers anew": (
            "finetune",
            {"frozen": True, "keep_frozen": False},
        ),
        OURS: ("finetune", {"frozen": True}),
    },
    "evaluation": {
        GLUE: ("trainer", {"pad": True, "trained": False}),
        DYNAMIC: ("trainer", {"trained": False}),
        OURS: ("predict", {}),
    },
}


class Turns:
    """In a variant's process: say how long a piece of work took, and wait for the next."""

    def __init__(self) -> None:
        self.steps = 0
        self._wait()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            sys.exit()
        self.started = (time.perf_counter(), time.process_time())

    def end(self) -> None:
        now = (time.perf_counter(), time.process_time())
        taken = [end - begin for begin, end in zip(self.started, now, strict=True)]
        print(MARK + json.dumps(taken), flush=True)
        self._wait()

    def end_step(self) -> None:
        self.steps += 1
        if self.steps % STEPS == 0:
            self.end()

    def repeat(self, work: Callable[[], Any]) -> None:
        while True:
            work()
            self.end()


def table(part: str) -> pa.Table:
    train = read_arrow("data/tokenized/train.arrow")
    return train.take(list(range(min(len(train), ROWS[part]))))


def collate(rows: list[dict[str, Any]], length: int | None = None) -> dict[str, Any]:
    import torch

    ids = [torch.tensor(row["input_ids"]) for row in rows]
    length = length or max(map(len, ids))
    padded = [torch.nn.functional.pad(x, (0, length - len(x))) for x in ids]
    mask = torch.stack([torch.arange(length) < len(x) for x in ids]).long()
    labels = torch.tensor([row["target"] for row in rows])
    return {"input_ids": torch.stack(padded), "attention_mask": mask, "labels": labels}


def make_trainer(
    rows: list[dict[str, Any]], *, pad: bool = False, callbacks: Any = (), frozen: bool = False,
    **arguments: Any,
) -> Any:  # fmt: skip
    """The Trainer on the base with a fresh head, as the examples of transformers set it up."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        Trainer,
        TrainingArguments,
        logging,
    )

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    model = AutoModelForSequenceClassification.from_pretrained("data/base", num_labels=2)
    if frozen:
        model.base_model.requires_grad_(False)
    settings = TrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, report_to="none",
        per_device_eval_batch_size=64, learning_rate=HEAD_RATE if frozen else RATE,
        weight_decay=0.01, save_strategy="no", logging_strategy="no", disable_tqdm=True,
        use_cpu=True, remove_unused_columns=False, **arguments,
    )  # fmt: skip
    length = LENGTH if pad else None
    return Trainer(model, settings, lambda x: collate(x, length), rows, callbacks=[*callbacks])


def trainer(
    part: str, pad: bool = False, bf16: bool = False, grouped: bool = False,
    frozen: bool = False, trained: bool = True,
) -> None:  # fmt: skip
    from transformers import TrainerCallback

    rows, turns = table(part).to_pylist(), Turns()

    class Ticks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.end_step()

    if not trained:
        predicting = make_trainer([], pad=pad)
        turns.repeat(lambda: predicting.predict(rows))
    if frozen:
        turns.repeat(lambda: make_trainer(rows, pad=pad, frozen=True, num_train_epochs=3).train())
    strategy = "group_by_length" if grouped else "random"
    make_trainer(
        rows, pad=pad, bf16=bf16, train_sampling_strategy=strategy, max_steps=10_000,
        callbacks=[Ticks()],
    ).train()  # fmt: skip


def lightning(part: str) -> None:
    import lightning.pytorch as pl
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(THREADS)
    turns = Turns()

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForSequenceClassification.from_pretrained("data/base")
            self.model.train()

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            return self.model(**batch).loss

        def on_train_batch_end(self, *_: Any) -> None:
            turns.end_step()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=RATE, weight_decay=0.01)

    rows: Any = table(part).to_pylist()
    loader = torch.utils.data.DataLoader(rows, BATCH, shuffle=True, collate_fn=collate)
    pl.Trainer(
        accelerator="cpu", max_epochs=10_000, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
    ).fit(Module(), loader)  # fmt: skip


def sections(frozen: bool = False, **changes: Any) -> Any:
    """The project's parameters at the benchmark's settings: the section `finetune`, and the run."""
    from stages import check, plugins
    from stages.params import Run

    params = check.load()
    name = "head_only" if frozen else "full"
    method = plugins.load("methods", name)
    rate = method.Params(learning_rate=HEAD_RATE if frozen else RATE)
    chosen = {"method": method, "method_name": name, "method_params": rate}
    settings = {"batch_size": BATCH, "batch_tokens": None, "accumulate": 1, "early_stopping": 0,
                "warmup_epochs": 0.0, "schedule": "linear", "weight_decay": 0.01,
                "clip_norm": 1.0, "dropout": None}  # fmt: skip
    section = params.sections["finetune"].model_copy(update=settings | changes)
    return section, Run(**(vars(params.run) | chosen))


def finetune(
    part: str, precision: Any = "auto", packed: bool = True, frozen: bool = False, **changes: Any
) -> None:
    from stages.training import fitting, machine, packing
    from stages.training.module import FineTuning

    rows, turns = table(part), Turns()
    section, run = sections(frozen, epochs=3 if frozen else 10_000, **changes)
    found = machine.configure("cpu", precision, THREADS)
    if not packed:
        packing.prepare = lambda _: None  # type: ignore[assignment]

    def fit() -> None:
        fitting.fit(section, run, found, labels(), rows, rows.slice(0, 8), tracked=False)

    if frozen:
        turns.repeat(fit)
    FineTuning.on_train_batch_end = lambda *_: turns.end_step()  # type: ignore[method-assign]
    fit()


def predict(part: str) -> None:
    import torch

    from stages.training import dropout, machine, predicting, weights

    rows, turns = table(part), Turns()
    _, run = sections()
    found = machine.configure("cpu", "auto", THREADS)
    torch.manual_seed(0)
    model = weights.build(run, labels(), run.method_params)[0].eval()
    dropout.replace(model)
    turns.repeat(lambda: predicting.predict(model, rows, 64, found.device))


def labels() -> list[str]:
    return ["negative", "positive"]


def learn(train: pa.Table, test: pa.Table, seed: int) -> float:
    from stages.training import fitting, machine

    section, run = sections(seed=seed, epochs=EPOCHS)
    found = machine.configure("cpu", "auto", THREADS)
    _, best = fitting.fit(section, run, found, labels(), train, test, tracked=False)
    return float(best.curve[-1]["validation_accuracy"])


def learn_with_trainer(train: pa.Table, test: pa.Table, seed: int) -> float:
    import torch
    from transformers import set_seed

    set_seed(seed)
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    learner = make_trainer(train.to_pylist(), num_train_epochs=EPOCHS, seed=seed)
    learner.train()
    rows = test.to_pylist()
    logits = learner.predict(rows).predictions
    return float((logits.argmax(-1) == [row["target"] for row in rows]).mean())


if __name__ == "__main__":
    kind, how = VARIANTS[sys.argv[1]][sys.argv[2]]
    globals()[kind](sys.argv[1], **how)
