"""Checkpoints on disk: written whole or not at all, named by what they belong to.

results/run/checkpoints/<key>/ holds the checkpoints of one set of inputs, where <key> is the
hash of all of them, so a changed parameter never finds another run's. Neither git nor DVC
tracks the folder, and DVC, which removes outputs before a run, leaves it alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts import sha256

if TYPE_CHECKING:
    import torch

FOLDER = Path("results/run/checkpoints")
TRIALS = "trial-"  # begins the names of those of trials, of which many may be under way
PRETRAINING = "pretrain-"
KEPT = 2  # the last, and the one before, should the last be damaged
Tensors = dict[str, "torch.Tensor"]


def key(stage: str, names: dict[str, str], *values: Any, pipeline: Path = Path("dvc.yaml")) -> str:
    """Hash of everything that a stage's result depends on.

    Args:
        stage: its deps, code and data, are those that dvc.yaml lists, by content.
        names: for `${...}` in them, such as {"run.method": "full"}.
        values: whatever else counts, as JSON: parameters, versions, the device class.
        pipeline: the dvc.yaml that the stage is in; its paths are those of the project's root.
    """
    from ruamel.yaml import YAML

    deps = YAML(typ="safe", pure=True).load(pipeline)["stages"][stage]["deps"]
    contents = {}
    for dep in deps:
        path = Path(re.sub(r"\$\{([\w.]+)\}", lambda found: names[found[1]], dep))
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not file.is_dir() and "__pycache__" not in file.parts:
                contents[file.as_posix()] = sha256(file)
    text = json.dumps([contents, *values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Checkpoints:
    """The checkpoints of one key.

    A file's name ends in the SHA-256 of its bytes, so that one that is cut short or damaged
    is known. The moment of writing depends on the clock, what is written does not.
    """

    def __init__(self, folder: Path, seconds: float = 5.0, share: float = 0.015) -> None:
        """
        Args:
            seconds: least time between two.
            share: of the time that writing may take, at most.
        """
        self.folder = folder
        self.seconds = seconds
        self.share = share
        self.cost: float | None = None  # seconds that the last one took
        self.spent = 0.0  # seconds that all took
        self.ended = time.monotonic()
        self.best: tuple[int, str] | None = None  # epoch and file of the best weights

    def due(self, size: int) -> bool:
        """Is it time for the next, which has so many bytes?"""
        # Before the first was measured: a slow disk's 200 MB a second.
        cost = size / 2e8 if self.cost is None else self.cost
        return time.monotonic() - self.ended >= max(self.seconds, cost / self.share)

    def save(self, step: int, state: dict[str, Any], tensors: Tensors, best: Tensors) -> None:
        """Write one; where the disk is full, say so and train on without.

        Args:
            step: optimizer steps done; orders the checkpoints.
            state: JSON; its `best_epoch` says when the best weights were had.
            best: those weights, written anew only when the epoch is another. May be empty.
        """
        from safetensors import SafetensorError

        started = time.monotonic()
        try:
            if best and (self.best is None or self.best[0] != state["best_epoch"]):
                self.best = (state["best_epoch"], self._write("best", state["best_epoch"], best))
            state = state | {"best_file": self.best[1] if best and self.best else None}
            self._write("step", step, tensors | {"state": _encode(state)})
            self._prune()
        except (OSError, SafetensorError) as error:
            print(f"training: no checkpoint ({error}); it goes on without", file=sys.stderr)
        self.ended = time.monotonic()
        self.cost = self.ended - started
        self.spent += self.cost

    def load(self) -> tuple[dict[str, Any], Tensors, Tensors] | None:
        """State, tensors and best weights of the last one that is whole."""
        for file in self.folder.glob("*"):
            if not file.name.startswith(("step-", "best-")) or file.suffix == ".partial":
                file.unlink()  # half a file, of a run that was killed as it wrote
        for file in sorted(self.folder.glob("step-*"), reverse=True):
            tensors = _read(file)
            state = _decode(tensors.pop("state")) if tensors else None
            name = state["best_file"] if state else None
            best = _read(self.folder / name) if name else {}
            if tensors and state and best is not None:
                self.best = (state["best_epoch"], name) if name else None
                return state, tensors, best
            print(f"{file}: damaged; the checkpoint before it is used", file=sys.stderr)
            file.unlink(missing_ok=True)
        return None

    def remove(self) -> None:
        """Remove them all: the stage has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, kind: str, number: int, tensors: Tensors) -> str:
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{kind}.partial"
        try:
            save_file(tensors, partial)
            name = f"{kind}-{number:010}-{sha256(partial)}.safetensors"
            _flush(partial)
            os.replace(partial, self.folder / name)
        finally:
            partial.unlink(missing_ok=True)
        _flush(self.folder)  # the new name as well, before the old ones go
        return name

    def _prune(self) -> None:
        steps = sorted(self.folder.glob("step-*"))
        for file in steps[:-KEPT]:
            file.unlink()
        # The checkpoint before the last may name the best weights before the last.
        for file in sorted(self.folder.glob("best-*"))[:-KEPT]:
            file.unlink()


def _read(file: Path) -> Tensors | None:
    """The tensors of a file, or None unless its bytes are those that its name tells."""
    from safetensors.torch import load_file

    try:
        if sha256(file) != file.stem.rpartition("-")[2]:
            return None
        return load_file(file)
    except OSError:
        return None


def _encode(state: dict[str, Any]) -> torch.Tensor:
    import torch

    return torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)


def _decode(tensor: torch.Tensor) -> dict[str, Any]:
    return json.loads(bytes(tensor.tolist()))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
