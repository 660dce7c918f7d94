"""Pretraining from a folder of texts: blocks, training, resuming, and the base that comes of it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import __main__, check, pretrain, pretrain_tokenize
from stages.artifacts import read_arrow
from tests import crash
from tests import project as projects
from tests.project import Project

TEXTS = "data/raw/texts"
PIPELINE = "workflow/pretrain/dvc.yaml"
OUTPUTS = (
    "models/pretrained/model.safetensors",
    "models/pretrained/tokenizer.json",
    "results/pretrain/learning_curve.csv",
    "results/pretrain/training.json",
)
SMALL: dict[str, Any] = {
    "pretrain_tokenize": {"vocabulary": 300, "block": 32, "validation": 0.2},
    "pretrain": {
        "hidden": 32, "layers": 2, "heads": 2, "epochs": 3, "batch_size": 8, "accumulate": 2,
        "learning_rate": 0.01, "warmup_epochs": 0.2, "dropout": 0.1, "device": "cpu",
        "precision": "float32", "threads": 1,
    },
}  # fmt: skip


def write_texts(folder: Path, count: int = 10) -> None:
    """Sentences of a small grammar; one document is there twice, and one is empty."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        sentences = [
            f"The {draw.choice(['cat', 'dog', 'old man'])} {draw.choice(['saw', 'liked'])} the "
            f"{draw.choice(['river', 'house', 'sea'])}. " for _ in range(60)
        ]  # fmt: skip
        (folder / f"{number}.txt").write_text("".join(sentences))
    (folder / "more").mkdir()
    (folder / "more/0.txt").write_text((folder / "0.txt").read_text())
    (folder / "more/empty.txt").write_text(" \n")


def make_small(project: Project) -> None:
    def change(content: Any) -> None:
        for stage, values in SMALL.items():
            content[stage] |= values

    project.edit("workflow/pretrain/params.yaml", change)


def sections(**changes: Any) -> tuple[Any, Any]:
    loaded = check.load_pretrain(projects.ROOT / check.PRETRAIN)
    first, second = (
        loaded[stage].model_copy(update=SMALL[stage] | changes) for stage in check.PRETRAIN_STAGES
    )
    return first, second


def hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in OUTPUTS}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which DVC ran the pipeline."""
    project = projects.make(tmp_path_factory.mktemp("pretrain"))
    write_texts(project.folder / TEXTS)
    make_small(project)
    project.commit("texts")
    assert project.repro(PIPELINE) == set(check.PRETRAIN_STAGES)
    return project


def read_json(project: Project, name: str) -> Any:
    return json.loads((project.folder / "results/pretrain" / name).read_text())


def test_both_engines_find_it_up_to_date(trained: Project) -> None:
    assert trained.repro(PIPELINE) == set()
    before = (trained.folder / "workflow/pretrain/dvc.lock").read_text()
    trained("snakemake", "--config", f"pipeline={PIPELINE}")
    assert (trained.folder / "workflow/pretrain/dvc.lock").read_text() == before
    changed = trained("git", "status", "--porcelain").splitlines()
    assert changed == ["?? results/", "?? workflow/pretrain/dvc.lock"]


def test_a_clone_that_has_not_run_it_checks_out(tmp_path: Path) -> None:
    clone = projects.make(tmp_path / "clone")
    assert "pretrain" not in clone("dvc", "checkout", code=None)


def test_documents_are_counted(trained: Project) -> None:
    about = read_json(trained, "tokens.json")
    assert (about["empty"], about["duplicates"]) == (1, 1)
    assert (about["train"]["documents"], about["validation"]["documents"]) == (8, 2)


def test_perplexity_falls_and_is_that_of_plain_transformers(trained: Project) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with open(trained.folder / "results/pretrain/learning_curve.csv") as file:
        curve = [float(row["validation_perplexity"]) for row in csv.DictReader(file)]
    # Of the words of a sentence, three are drawn: among 3, 2 and 3. All else can be known.
    assert 300 > curve[0] > curve[-1] and curve[-1] < 6
    outcome = read_json(trained, "training.json")
    folder = trained.folder / "models/pretrained"
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert model.lm_head.weight is model.transformer.wte.weight
    table = read_arrow(trained.folder / "data/pretrain/validation.arrow")
    total = 0.0
    for ids in table["input_ids"].to_pylist():
        with torch.no_grad():
            row = torch.tensor([ids])
            total += float(model(row, labels=row).loss) * (len(ids) - 1)
    about = read_json(trained, "tokens.json")["validation"]
    assert outcome["validation"]["loss"] == pytest.approx(total / about["tokens"], rel=1e-4)
    assert outcome["validation"]["loss_per_byte"] == pytest.approx(total / about["bytes"], rel=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("The cat saw")["input_ids"]) == "The cat saw"


def test_it_is_a_base(trained: Project) -> None:
    trained.set("fetch_model.folder", "models/pretrained")
    trained.set("tokenize.max_length", 32)
    assert trained.repro("tokenize") == {"fetch_model", "prepare", "tokenize"}
    assert "models/pretrained: 0 MB, no hash pinned" in " ".join(
        trained("python", "-m", "stages", "check").split()
    )


def test_killed_and_resumed_it_ends_with_the_same_bytes(
    trained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.training.checkpoints import Checkpoints
    from stages.training.module import FineTuning

    monkeypatch.chdir(tmp_path)
    for name in ("stages", "workflow"):
        Path(name).symlink_to(projects.ROOT / name)
    Path("data").mkdir()
    Path("data/pretrain").symlink_to(trained.folder / "data/pretrain")
    Path("results/pretrain").mkdir(parents=True)
    text = (trained.folder / "results/pretrain/tokens.json").read_bytes()
    Path("results/pretrain/tokens.json").write_bytes(text)
    plain, step, batches = Checkpoints.__init__, FineTuning.training_step, 0

    def init(self: Checkpoints, folder: Path) -> None:
        plain(self, folder, 0.0, 1e9)

    def work(last: int) -> int:
        """Batches that were trained on, of which the process does not survive the last."""

        def training_step(self: FineTuning, batch: Any, batch_idx: int) -> Any:
            nonlocal batches
            batches += 1
            if batches == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, batch, batch_idx)

        Checkpoints.__init__ = init  # type: ignore[method-assign,assignment]
        FineTuning.training_step = training_step  # type: ignore[method-assign]
        pretrain.run(sections()[1])
        return batches

    whole = 3 * -(-len(read_arrow("data/pretrain/train.arrow")) // 8)
    for last in (7, whole // 2):
        _, status = os.waitpid(crash.fork(partial(work, last)), 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, Path("error.log").read_text()
    crash.await_end(crash.fork(partial(work, -1)))
    assert int(Path("batches").read_text()) < whole / 2
    assert hashes(tmp_path) == hashes(trained.folder)


def test_each_token_is_predicted_once_and_texts_come_back() -> None:
    texts = ["a café 東京 🙂\n\n  x <|endoftext|> y", "plain words, plain words " * 20, "z"]
    tokenizer = pretrain_tokenize.train_tokenizer(texts, 280)
    assert tokenizer.to_str() == pretrain_tokenize.train_tokenizer(texts, 280).to_str()
    table = pretrain_tokenize.blocks(tokenizer, texts, 8)
    rows = table["input_ids"].to_pylist()
    stream = [rows[0][0]] + [token for row in rows for token in row[1:]]
    assert all(row[0] == before[-1] for before, row in pairwise(rows))
    ends = [i for i, token in enumerate(stream) if token == 0]
    assert len(ends) == len(texts) + 1 and stream[-1] == 0
    found = [tokenizer.decode(stream[a + 1 : b]) for a, b in pairwise(ends)]
    assert found == texts
    assert sum(table["target"].to_pylist()) == sum(len(text.encode()) for text in texts)
    assert sum(table["target_tokens"].to_pylist()) == len(stream) - 1


def test_what_cannot_be_trained_on_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(check.PRETRAIN)
    file.parent.mkdir(parents=True)
    shipped = (projects.ROOT / file).read_text()
    (tmp_path / "pyproject.toml").write_bytes((projects.ROOT / "pyproject.toml").read_bytes())

    def said(stage: str, text: str = shipped) -> str:
        file.write_text(text)
        assert __main__.main([stage]) == 2
        return capsys.readouterr().err

    assert f"pretrain_tokenize.path: no such folder, got '{TEXTS}'" in said("pretrain_tokenize")
    Path(TEXTS).mkdir(parents=True)
    Path(TEXTS, "a.txt").write_text("a text")
    assert "1 documents in data/raw/texts" in said("pretrain_tokenize")
    Path(TEXTS, "b.txt").write_bytes(b"caf\xe9")
    assert "data/raw/texts/b.txt: not UTF-8 at byte 3; save it as UTF-8" in said(
        "pretrain_tokenize"
    )
    wrong = shipped.replace("heads: 6", "heads: 5").replace("epochs: 1 ", "epoch: 1 ")
    lines = said("pretrain", wrong)
    assert (
        "workflow/pretrain/params.yaml: pretrain.epoch: unknown key, got 1; did you mean" in lines
    )
    wrong = shipped.replace("heads: 6", "heads: 5")
    assert "pretrain.heads: must divide hidden, 192, got 5" in said("pretrain", wrong)
