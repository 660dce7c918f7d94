"""Mistakes in params.yaml: all at once, in the user's words, exit code 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages import __main__, check
from stages.errors import UserError
from tests import tiny

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def change(*changes: tuple[str, Any]) -> None:
    """Set keys, given with dots; a value of ... removes the key."""
    yaml = YAML()
    content = yaml.load(Path("params.yaml").read_text())
    for key, value in changes:
        *path, last = key.split(".")
        place = content
        for part in path:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    with Path("params.yaml").open("w") as out:
        yaml.dump(content, out)


MISTAKES = [
    ("finetune.learning_rat", 1e-4, "finetune.learning_rat: unknown key, got 0.0001; did you mean 'learning_rate'?"),
    ("finetunne", {}, "finetunne: unknown key; did you mean 'finetune'?"),
    ("tasks.classification.data.lable", "y", "tasks.classification.data.lable: unknown key, got 'y'; did you mean 'label'?"),
    ("methods.lora.rnk", 4, "methods.lora.rnk: unknown key, got 4; did you mean 'rank'?"),
    ("finetune.epochs", ..., "finetune.epochs: missing; write a value for it"),
    ("report", ..., "report: missing; write a value for it"),
    ("run.method", "lorra", "run.method: no file stages/methods/lorra.py, got 'lorra'; did you mean 'lora'?"),
    ("run.task", "clasification", "run.task: no file stages/tasks/clasification.py, got 'clasification'; did you mean 'classification'?"),
    ("run.method", 3, "run.method: wrong type or form, got 3; write a string"),
    ("finetune.schedule", "linnear", "finetune.schedule: not a known value, got 'linnear'; did you mean 'linear'?"),
    ("finetune.schedule", "step", "finetune.schedule: not a known value, got 'step'; write one of: constant, cosine, linear"),
    ("finetune.precision", "fp16", "finetune.precision: not a known value, got 'fp16'; "),
    ("finetune.device", "gpu", "finetune.device: not a known value, got 'gpu'; "),
    ("tracking.wandb", "of", "tracking.wandb: not a known value, got 'of'; "),
    ("finetune.epochs", 0, "finetune.epochs: out of range, got 0; write greater than or equal to 1"),
    ("finetune.epochs", "three", "finetune.epochs: wrong type or form, got 'three'; write an integer"),
    ("finetune.epochs", 2.5, "finetune.epochs: wrong type or form, got 2.5; write an integer"),
    ("finetune.epochs", True, "finetune.epochs: wrong type or form, got True; write an integer"),
    ("finetune.learning_rate", -1.0, "finetune.learning_rate: out of range, got -1.0; write greater than 0"),
    ("finetune.learning_rate", float("nan"), "finetune.learning_rate: wrong type or form, got nan; write a finite number"),
    ("finetune.learning_rate", "1e-4x", "finetune.learning_rate: wrong type or form, got '1e-4x'; write a number"),
    ("finetune.warmup_epochs", 9, "finetune.warmup_epochs: warm-up longer than training, got 9.0; write at most 4"),
    ("finetune.batch_size", 0, "finetune.batch_size: out of range, got 0; "),
    ("finetune.clip_norm", -1, "finetune.clip_norm: out of range, got -1; "),
    ("finetune", None, "finetune: wrong type or form, got None; "),
    ("finetune", [1], "finetune: wrong type or form, got [1]; "),
    ("tokenize.max_length", 2, "tokenize.max_length: out of range, got 2; "),
    ("tokenize.max_truncated", 1.5, "tokenize.max_truncated: out of range, got 1.5; "),
    ("tasks.classification.data.labels", ["a", "a"], "tasks.classification.data.labels: a label is listed twice, got ['a', 'a']; "),
    ("tasks.classification.data.labels", ["a"], "tasks.classification.data.labels: one label only, got ['a']; "),
    ("tasks.classification.loss.label_smoothing", 1, "tasks.classification.loss.label_smoothing: out of range, got 1; "),
    ("tasks.classification.loss.class_weights", "balance", "not a known value, got 'balance'; did you mean 'balanced'?"),
    ("methods.lora.rank", 0, "methods.lora.rank: out of range, got 0; "),
    ("methods.lora.targets", "all_linear", "methods.lora.targets: not a known value, got 'all_linear'; did you mean 'all-linear'?"),
    ("evaluate.bootstrap", 10, "evaluate.bootstrap: out of range, got 10; "),
    ("prepare.test", 1.0, "prepare.test: "),
    ("prepare.delimiter", "", "prepare.delimiter: "),
    ("fetch_model.source", "hubb", "fetch_model.source: not a known value, got 'hubb'; did you mean 'hub'?"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message"), MISTAKES)
def test_a_mistake_is_named(
    key: str, value: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change((key, value))
    assert __main__.main(["prepare"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert any(message in line for line in lines), lines
    assert all(line.startswith("params.yaml: ") for line in lines)
    assert not Path("data").exists()


def test_all_mistakes_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    change(("finetune.epochs", 0), ("run.method", "lorra"), ("tokenize.max_lenght", 8))
    assert __main__.main(["finetune"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 3


def test_max_length_beyond_the_positions_of_the_base() -> None:
    tiny.make_base("data/local_base")
    change(
        ("fetch_model.source", "folder"), ("fetch_model.sha256", {}), ("tokenize.max_length", 65)
    )
    with pytest.raises(UserError, match=r"tokenize.max_length: the base has 64 positions, got 65"):
        check.load()
    change(("tokenize.max_length", 64))
    check.load()


def test_a_method_that_does_not_support_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.methods import lora

    monkeypatch.setattr(lora, "refuses", lambda task: "it has no head")
    change(("run.method", "lora"))
    with pytest.raises(
        UserError, match="'lora' does not support the task 'classification': it has"
    ):
        check.load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("run: [", "params.yaml, line 1: not YAML"),
        ("a: 1\na: 2\n", "params.yaml, line 2: not YAML: found duplicate key"),
        ("", "params.yaml: no sections, got None"),
        ("- 1\n", r"params.yaml: no sections, got \[1\]"),
        ("a: b\n\t- c", "params.yaml, line 2: not YAML"),
    ],
)
def test_a_broken_file(content: str, message: str) -> None:
    Path("params.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        check.load()


def test_a_missing_or_undecodable_file() -> None:
    Path("params.yaml").write_bytes(b"run: \xff")
    with pytest.raises(UserError, match="not UTF-8 at byte 5"):
        check.load()
    Path("params.yaml").unlink()
    with pytest.raises(UserError, match=r"params.yaml: missing; run from the project's root"):
        check.load()


def test_a_card_that_names_another_base_is_refused() -> None:
    change(("fetch_model.source", "cache"), ("fetch_model.repo", "owner/model"))
    with pytest.raises(
        UserError, match=r"export.base_model: fetch_model.repo is 'owner/model', got"
    ):
        check.load()
    change(("export.base_model", None))
    check.load()


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["prepar"]) == 2
    assert "no such stage, got 'prepar'; did you mean 'prepare'?" in capsys.readouterr().err
    assert __main__.main(["prepare", "now"]) == 2
    assert "takes no argument, got 'now'" in capsys.readouterr().err
    assert __main__.main(["--help"]) == 0


def test_sections_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        check.load().sections["finetune"].epochs = 3


def test_the_schema_is_current_and_fits_params_yaml() -> None:
    written = json.loads((ROOT / check.SCHEMA).read_text())
    assert written == check.schema(), "run: python -m stages schema"
    for section, value in YAML(typ="safe").load((ROOT / "params.yaml").read_text()).items():
        assert section in written["properties"], value


def test_every_key_of_params_yaml_is_commented_or_plain() -> None:
    """params.yaml explains itself: each stage's section has at least one comment."""
    blocks = (ROOT / "params.yaml").read_text().split("\n\n")
    stages = [block for block in blocks if block.split(":")[0] in check.STAGES]
    assert len(stages) == len(check.STAGES)
    assert all("#" in block for block in stages if "title" not in block)
