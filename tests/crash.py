"""Kills `finetune` at random moments and compares the bytes in the end.

Run: python -m tests.crash KILLS [SEED] [WORKERS] [METHOD ...], such as python -m tests.crash 200

For each method, one run without checkpoints gives the bytes that are due. Then runs are killed,
again and again, until each method has had KILLS: by SIGKILL, as a user, the kernel short of memory
or a power cut would, by SIGTERM, as a cluster that wants its machine back, or by Ctrl-C; at a
random time, or as they write a checkpoint, validate or write their outputs. Sometimes the last
checkpoint is then harmed, as by a power cut. Every few kills a run is let to its end, and its
outputs are compared. Libraries are imported once; each run is a fork. WORKERS are those that load
data.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from tests import project as projects
from tests import tiny

OUTPUTS = (
    "models/finetuned/model.safetensors",
    "models/finetuned/finetuned.json",
    "results/training.json",
    "results/learning_curve.csv",
)
CHANGES: dict[str, Any] = {
    "epochs": 4, "threads": 1, "batch_size": 4, "accumulate": 2, "warmup_epochs": 0.5,
    "device": "cpu", "precision": "float32", "early_stopping": 3,
}  # fmt: skip
LOST_INTERRUPT = "could not determine the shape of object type 'torch.storage.UntypedStorage'"
INTERRUPTED = 130
Death = Callable[[], None]


def make(folder: Path) -> None:
    """What `finetune` reads, in a folder of its own; batches do not fill the last step."""
    from stages.artifacts import write_arrow, write_json
    from tests.test_training import LABELS, table

    tiny.make_base(folder / "data/base")
    write_json(folder / "data/prepared/labels.json", LABELS)
    write_arrow(folder / "data/tokenized/train.arrow", table(50))
    write_arrow(folder / "data/tokenized/validation.arrow", table(20, seed=1))
    shutil.copy(projects.ROOT / "dvc.yaml", folder)
    (folder / "stages").symlink_to(projects.ROOT / "stages")


def finetune(method: str, seconds: float | None, workers: int = 0, **changes: Any) -> int:
    """Run the stage here.

    Args:
        seconds: least time between checkpoints; None: none are written.

    Returns:
        Number of batches that this process trained on.
    """
    from stages import finetune as stage
    from stages.training import data
    from stages.training.checkpoints import Checkpoints
    from stages.training.module import FineTuning
    from tests.test_training import sections

    data.WORKERS = workers
    params, run = sections(method, **(CHANGES | changes))
    plain, batches = Checkpoints.__init__, 0

    def init(self: Checkpoints, folder: Path) -> None:
        plain(self, folder, seconds or 0.0, 1e9 if seconds is not None else 1e-12)

    step = FineTuning.training_step

    def counted(self: FineTuning, batch: Any, batch_idx: int) -> Any:
        nonlocal batches
        batches += 1
        return step(self, batch, batch_idx)

    Checkpoints.__init__ = init  # type: ignore[method-assign,assignment]
    FineTuning.training_step = counted  # type: ignore[method-assign]
    stage.run(params, run)
    return batches


def fork(work: Callable[[], Any]) -> int:
    """Start `work` in a child of this process; its output goes to run.log."""
    child = os.fork()
    if child:
        return child
    code = 1
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    try:
        with open("run.log", "w", encoding="utf-8") as log, redirect_stderr(log):
            Path("batches").write_text(str(work()))
            code = 0
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:
        import traceback

        with open("error.log", "w", encoding="utf-8") as log:
            traceback.print_exc(file=log)
    finally:
        os._exit(code)


def await_end(child: int) -> None:
    """Wait for a child that must end well."""
    _, status = os.waitpid(child, 0)
    assert status == 0, Path("error.log").read_text()


def hashes() -> dict[str, str]:
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in OUTPUTS}


def clear() -> None:
    """What DVC does before it runs a stage: remove its outputs."""
    shutil.rmtree("models", ignore_errors=True)
    for name in OUTPUTS[2:]:
        Path(name).unlink(missing_ok=True)


def dying(owner: Any, name: str, number: int, after: bool) -> Death:
    """In a child: die at the n-th call of a function, before it or after."""

    def arm() -> None:
        plain, calls = getattr(owner, name), 0

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = plain(*args, **kwargs)
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, call)

    return arm


def moments(draw: random.Random) -> dict[str, Death]:
    """The moments that a random time would seldom meet."""
    import safetensors.torch

    from stages import artifacts
    from stages import finetune as stage
    from stages.training import checkpoints, weights
    from stages.training.callbacks import BestEpoch
    from stages.training.module import FineTuning

    def at(owner: Any, name: str, most: int) -> Death:
        return dying(owner, name, draw.randint(1, most), draw.random() < 0.5)

    return {
        "checkpoint written": at(safetensors.torch, "save_file", 12),
        "checkpoint renamed": at(checkpoints.os, "replace", 12),
        "checkpoint flushed": at(checkpoints, "_flush", 24),
        "old checkpoint removed": at(checkpoints.Checkpoints, "_prune", 12),
        "validation": at(FineTuning, "validation_step", 12),
        "end of an epoch": at(BestEpoch, "on_train_epoch_end", 4),
        "weights written": at(weights, "save", 1),
        "weights flushed": at(artifacts, "_flush", 4),
        "outcome written": at(stage, "write_json", 1),
        "checkpoints removed": at(checkpoints.Checkpoints, "remove", 1),
    }


def killed(method: str, draw: random.Random, seconds: float, span: float, workers: int) -> str:
    """Run once and die; what the moment was, or "" where the run ended before it."""
    chosen = draw.choice(["a random time", "moment"])
    known = moments(draw)
    name = draw.choice(sorted(known)) if chosen == "moment" else chosen

    def work() -> int:
        if name in known:
            known[name]()
        return finetune(method, seconds, workers)

    child = fork(work)
    if name == "a random time":
        time.sleep(draw.uniform(0.0, span))
        how = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        os.kill(child, how)
        name = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}.get(how, name)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (*range(-64, 1), INTERRUPTED):
        error = Path("error.log").read_text()
        # What torch makes of an interrupt that comes while it looks at a storage, seen once.
        assert name in ("SIGTERM", "Ctrl-C") and LOST_INTERRUPT in error, error
    if code and draw.random() < 0.3 and harmed(draw):
        name = "power cut"
    return name if code else ""


def harmed(draw: random.Random) -> bool:
    """Cut the last checkpoint short, or change a byte of it; False where there is but one."""
    files = sorted(Path("results/run/checkpoints").glob("*/step-*.safetensors"))
    if len(files) < 2:
        return False
    content = bytearray(files[-1].read_bytes())
    place = draw.randrange(len(content))
    content[place] ^= 1
    files[-1].write_bytes(content if draw.random() < 0.5 else content[:place])
    return True


def _terminate(*_: Any) -> None:
    raise KeyboardInterrupt


def trial(method: str, kills: int, seed: int, workers: int) -> str:
    """Kill so many runs of one method; a line about what happened.

    Raises:
        AssertionError: an output differs from that of the uninterrupted run.
    """
    draw = random.Random(f"{method} {seed}")
    started = time.monotonic()
    await_end(fork(lambda: finetune(method, None, workers)))
    span, whole = time.monotonic() - started, int(Path("batches").read_text())
    due, seen, done, ends, saved = hashes(), set(), 0, 0, 0
    while done < kills:
        for _ in range(draw.randint(1, 4)):
            clear()
            if name := killed(method, draw, draw.choice([0.0, 0.05]), span, workers):
                done += 1
                seen.add(name)
        clear()
        await_end(fork(lambda: finetune(method, 0.0, workers)))
        ends += 1
        saved += whole - int(Path("batches").read_text())
        assert hashes() == due, f"{method}: other bytes after {done} kills"
        assert not list(Path("results/run/checkpoints").glob("*")), "checkpoints are left"
    # A method without steps has no checkpoints; few kills may all come before the first.
    assert saved or kills < 10 or not whole, "no run went on from a checkpoint"
    share = saved / (ends * whole) if ends and whole else 0.0
    print(
        f"{method}: {done} kills ({', '.join(sorted(seen))}), {ends} runs to the end, "
        f"{share:.0%} of their batches taken over, the same bytes {due[OUTPUTS[0]]}"
    )
    return due[OUTPUTS[0]]


def main(kills: int, seed: int, workers: int, methods: list[str]) -> None:
    import lightning.pytorch  # noqa: F401
    import peft  # noqa: F401
    import transformers.models.auto.modeling_auto
    import transformers.models.bert.modeling_bert  # noqa: F401

    from stages import plugins
    from stages.training import resuming  # noqa: F401

    os.environ["WANDB_MODE"] = "disabled"
    for method in methods or plugins.names("methods"):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            make(Path(folder))
            trial(method, kills, seed, workers)
            os.chdir(projects.ROOT)


if __name__ == "__main__":
    numbers = [int(value) for value in sys.argv[1:] if value.isdigit()]
    kills, seed, workers = [*numbers, 0, 0][:3]
    main(kills, seed, workers, [value for value in sys.argv[1:] if not value.isdigit()])
