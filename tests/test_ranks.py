"""Two processes that train one model: what one would learn, and the same bytes after a kill."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from stages.adaptation import Adapted
from stages.artifacts import read_arrow
from stages.errors import UserError
from stages.training.ranks import Ranks, SharingOut, check, join
from tests import project as projects
from tests import running

OUTPUTS = ("models/finetuned/model.safetensors", "results/training.json")
WAYS: dict[str, dict[str, Any]] = {
    "full": {"finetune.accumulate": 2},
    "layers that join": {"methods.full.gradual_unfreeze": 1, "finetune.batch_tokens": 60},
    "kept trunk": {"run.method": "freeze", "methods.freeze.layers": 1},
    "shared out": {
        "finetune.strategy": "fsdp",
        "finetune.accumulate": 2,
        "finetune.gradient_checkpointing": True,
    },
    "shared out, padded": {"finetune.strategy": "fsdp", "run.method": "prefix"},
    "shared out, kept trunk": {
        "finetune.strategy": "fsdp",
        "run.method": "freeze",
        "methods.freeze.layers": 1,
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tokenized rows, of which the last batch has one, so that rank 1 has none of it."""
    monkeypatch.chdir(tmp_path)
    running.ready(tmp_path, "classification", projects.reviews(90), "reviews.csv")
    (tmp_path / "tests").symlink_to(projects.ROOT / "tests")
    running.run("fetch_model", "prepare", "tokenize")
    rows = len(read_arrow("data/tokenized/train.arrow"))
    running.put(
        tmp_path,
        {
            "finetune.batch_size": next(size for size in range(6, 99) if rows % size == 1),
            "finetune.dropout": 0.0,
        },
    )
    return tmp_path


def finetune(*death: int, code: int | None = 0) -> str:
    """Train in the current folder; its output.

    Args:
        death: rank that dies, and before which step.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.ranks", *map(str, death)],
        env=projects.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    output = done.stdout + done.stderr
    assert code is None or done.returncode == code, output
    return output


def curve() -> list[dict[str, float]]:
    lines = csv.DictReader(Path("results/learning_curve.csv").read_text().splitlines())
    return [{name: float(value) for name, value in line.items()} for line in lines]


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_learn_what_one_learns(folder: Path, way: str) -> None:
    running.put(folder, WAYS[way])
    found = {}
    for devices in (1, 2):
        running.put(folder, {"finetune.devices": devices})
        output = finetune()
        about = json.loads(Path("results/training.json").read_text())
        assert about.pop("parameters")["finetune"]["devices"] == devices
        norms = np.loadtxt("norms")
        Path("norms").unlink()
        found[devices] = (load_file(OUTPUTS[0]), curve(), about, norms)
    assert output.count("takes about") == 1 and output.count("epoch 1/2: ") == 1
    (alone, steps, told, norms), (weights, others, also, shared) = found[1], found[2]
    np.testing.assert_allclose(shared, norms, rtol=1e-3)  # AdamW forgives a factor
    assert alone.keys() == weights.keys()
    for name in alone:
        np.testing.assert_allclose(weights[name], alone[name], atol=2e-5, rtol=1e-4, err_msg=name)
    assert [row["step"] for row in others] == [row["step"] for row in steps]
    for row, other in zip(steps, others, strict=True):
        assert other == pytest.approx(row, rel=1e-4, abs=1e-5)
    shares = {"padding_share", "validation", "stored_bytes", "memory_bytes"}
    assert {k: v for k, v in also.items() if k not in shares} == {
        k: v for k, v in told.items() if k not in shares
    }
    if "kept trunk" in way:
        assert also["frozen_layers"] == "kept"


@pytest.mark.parametrize("strategy", get_args(SharingOut))
def test_a_kill_of_any_of_them_leaves_the_same_bytes(folder: Path, strategy: str) -> None:
    changes = {"finetune.dropout": 0.1, "finetune.devices": 2, "finetune.strategy": strategy}
    running.put(folder, changes)
    finetune()
    due = [Path(name).read_bytes() for name in OUTPUTS]
    for name in OUTPUTS:
        Path(name).unlink()
    for rank, step in ((0, 7), (1, 12)):
        finetune(rank, step, code=None)
        assert not Path(OUTPUTS[0]).exists()
    assert finetune().count("goes on after step") == 1
    assert [Path(name).read_bytes() for name in OUTPUTS] == due
    assert not [*Path("results/run/checkpoints").iterdir()]


def test_each_row_of_a_batch_has_one_rank() -> None:
    rows, lengths = np.array([4, 0, 3]), np.array([9, 1, 1, 2, 30])
    shares = [Ranks(rank, 4).share(rows, lengths).tolist() for rank in range(4)]
    assert shares == [[4], [0], [3], []]
    assert Ranks().share(rows, lengths).tolist() == rows.tolist()


def test_what_cannot_be_shared_out_is_refused() -> None:
    model: Any = torch.nn.Linear(2, 2)
    check(model, Adapted(model))
    end = r"got 'fsdp'; write ddp$"
    with pytest.raises(UserError, match=rf"^params\.yaml: finetune\.strategy: .*{end}"):
        check(model, Adapted(model, joins={"bias": 1}))
    model.config = SimpleNamespace(layerdrop=0.1)
    with pytest.raises(UserError, match=r"leaves out layers at random \(layerdrop in its"):
        check(model, Adapted(model))
    model.config.layerdrop = 0
    model.weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UserError, match=r"4 bits \(methods\.lora\.base_bits\) cannot"):
        check(model, Adapted(model))


@pytest.mark.parametrize(
    ("visible", "told"),
    [
        ("", "torch finds 1 on this machine, got 2; write at most 1"),
        ("3", "torch finds 1 among CUDA_VISIBLE_DEVICES=3, got 2; write at most 1 or give"),
    ],
)
def test_more_devices_than_gpus_are_refused(
    monkeypatch: pytest.MonkeyPatch, visible: str, told: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError, match=rf"^params\.yaml: finetune\.devices: {told}"):
        join(2, "cuda")
