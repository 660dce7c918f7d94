"""`python -m stages check`: all problems at once, and nothing written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages import checking, space
from stages.__main__ import main
from stages.tokenize import Tokenize, load_tokenizer
from tests import project as projects
from tests import tiny
from tests.project import ROOT, Project

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """What check reads: the parameters, the DAG, the rows and a tiny base; no results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("params.yaml", "dvc.yaml", "pyproject.toml", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/reviews.csv").write_text(projects.reviews(120))
    tiny.make_base(tmp_path / "data/local_base")
    project = Project(tmp_path)
    project.set("fetch_model.source", "folder")
    project.set("fetch_model.sha256", {})
    project.set("tokenize.max_length", 16)
    return project


def check(capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[str, str]:
    """Output and errors; in 80 columns."""
    before = sorted(map(str, Path().rglob("*")))
    assert main(["check"]) == code
    assert sorted(map(str, Path().rglob("*"))) == before
    out, err = capsys.readouterr()
    assert all(len(line) <= 80 and line == line.rstrip() for line in out.splitlines())
    return out, err


def unwrapped(text: str) -> str:
    return " ".join(text.split())


def test_what_it_found(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = check(capsys)
    assert err == ""
    told = unwrapped(out)
    assert "valid: classification by full" in told
    assert "data/raw/reviews.csv: 120 rows, 120 kept, 0 rejected; 2 labels" in told
    assert "data/local_base: 0 MB, no hash pinned" in told
    assert "0 of 120 rows are longer than 16 tokens" in told
    assert "prepare run has not run yet" in told


def test_all_problems_at_once(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad parameter hides neither bad data nor a bad base nor another version."""
    project.set("finetune.epochs", 0)
    Path("data/raw/reviews.csv").write_text("text,lable,domain,style\na,b,c,d\n")
    Path("data/local_base/model.safetensors").unlink()
    text = Path("pyproject.toml").read_text()
    Path("pyproject.toml").write_text(text.replace('torch = "2.13.0"', 'torch = "0.1"'))
    lines = check(capsys, 2)[1].splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "params.yaml",
        "data/raw/reviews.csv",
        "data/local_base",
        "pyproject.toml",
    ]
    assert "finetune.epochs: out of range, got 0" in lines[0]
    assert "no column 'label'; did you mean 'lable'?" in lines[1]
    assert "model.safetensors: missing" in lines[2]
    assert "tool.pins.torch: installed is 2.13.0, got '0.1'" in lines[3]


def test_data_are_read_by_the_parameters_that_are_valid(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.set("prepare.seed", -1)
    out, err = check(capsys, 2)
    assert err.count("\n") == 1 and "prepare.seed: out of range" in err
    assert "not read, for the parameters that say how are not valid" in unwrapped(out)


def test_pinned_hashes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.set("fetch_model.sha256", {"config.json": "0" * 64})
    assert (
        "fetch_model.sha256.config.json: data/local_base holds other bytes" in check(capsys, 2)[1]
    )


def test_rows_that_would_be_cut(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.set("tokenize.max_length", 8)
    err = check(capsys, 2)[1]
    assert "tokenize.max_length: 100.0% of the 86 train rows are longer, got 8; write" in err
    project.set("tokenize.max_truncated", 1.0)
    assert "120 of 120 rows are longer than 8 tokens" in unwrapped(check(capsys)[0])


def test_a_sample_refuses_only_what_the_whole_would() -> None:
    """6% in 100 sampled rows may be 5% of them all; 20% may not."""
    params = Tokenize(max_length=8, max_truncated=0.05)

    def refused(longer: int, rows: int) -> bool:
        sizes = [5] * (100 - longer) + [9] * longer
        return bool(checking.truncation(sizes, "test rows", rows, params))

    assert refused(6, rows=100) and not refused(5, rows=100)
    assert not refused(6, rows=1000) and refused(20, rows=1000)


def test_advice_for_long_rows_can_be_followed() -> None:
    """The base reads 16 tokens, most rows have 40, and a share that is cut is rounded up."""

    def said(max_length: int) -> str:
        params = Tokenize(max_length=max_length, max_truncated=0.05)
        return checking.truncation([5] * 80 + [40] * 20, "rows", 100, params, room=16)[0]

    assert "write 16, which is all that the base reads (99% have up to 40 tokens)" in said(8)
    assert "the base reads no more" in said(16) and "max_truncated to 0.20" in said(16)
    params = Tokenize(max_length=8, max_truncated=0.05)
    (line,) = checking.truncation([5] * 941 + [40] * 59, "rows", 1000, params)
    assert "write 40 to keep 99%" in line and "raise tokenize.max_truncated to 0.06" in line


def test_too_little_disk_space(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of weights that are written three times, and once more each by DVC."""
    size = Path("data/local_base/model.safetensors").stat().st_size
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: Usage(0, 0, 5 * size))
    err = check(capsys, 2)[1]
    assert ".: too little disk space: " in err and "free some, or move the cache" in err
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: Usage(0, 0, 9 * size))
    check(capsys)
    # A cache that links instead of copying takes no space of its own.
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[cache]\n    type = hardlink\n")
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: Usage(0, 0, 5 * size))
    check(capsys)


def tokenizer_problems(**files: dict[str, Any]) -> list[str]:
    """With some keys of the tokenizer's files set; None removes a key."""
    folder = Path("data/local_base")
    for name, changes in files.items():
        path = folder / f"{name}.json"
        content = json.loads(path.read_text()) | changes
        kept = {key: value for key, value in content.items() if value is not None}
        path.write_text(json.dumps(kept))
    return checking.special_tokens(folder, load_tokenizer(folder / "tokenizer.json"))


def test_special_tokens(project: Project) -> None:
    assert tokenizer_problems() == []
    (problem,) = tokenizer_problems(tokenizer_config={"sep_token": "</s>"})
    assert problem.startswith("tokenizer_config.json: sep_token: not in the vocabulary")
    (problem,) = tokenizer_problems(
        tokenizer_config={"sep_token": "[SEP]"}, config={"vocab_size": 9}
    )
    assert "config.json's vocab_size is 9" in problem


def test_a_base_without_padding(project: Project) -> None:
    text = Path("data/local_base/tokenizer.json").read_text()
    Path("data/local_base/tokenizer.json").write_text(text.replace("[PAD]", "[XXX]"))
    none = {"pad_token": None}
    (problem,) = tokenizer_problems(
        tokenizer_config=none, special_tokens_map=none, config={"pad_token_id": None}
    )
    assert problem.startswith("config.json: pad_token_id: missing, and the tokenizer names no")


def test_a_damaged_tokenizer(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/local_base/tokenizer.json").write_text('{"model": {}}')
    assert "tokenizer.json of the base: not a tokenizer (" in check(capsys, 2)[1]


def test_it_loads_no_torch() -> None:
    """On the data and base that the project ships with."""
    code = (
        "import sys; from stages import checking; checking.main([]); "
        "print(sorted({'torch', 'lightning', 'transformers', 'peft', 'dvc'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# What would run.


def lock(change: Any = None) -> None:
    """Write a dvc.lock for two stages, as DVC would: `first` makes made/, `second` reads it."""
    from stages.plan import Hashes

    Path("code.py").write_text("pass\n")
    Path("made").mkdir(exist_ok=True)
    Path("made/a.txt").write_text("a")
    stages = {
        "first": {
            "cmd": "one",
            "deps": ["code.py", "${prepare.path}"],
            "params": ["prepare", {"pyproject.toml": ["tool.pins.torch"]}],
            "outs": ["made"],
        },
        "second": {"cmd": "two", "deps": ["made/a.txt"], "params": ["finetune.epochs"]},
    }
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))
    params = YAML(typ="safe").load(Path("params.yaml"))

    def entry(path: str) -> dict[str, str]:
        hashes = Hashes()
        digest = hashes._md5(Path(path), hashes._files(Path(path)))
        return {"path": path, "hash": "md5", "md5": digest}

    written = {
        "first": {
            "cmd": "one",
            "deps": [entry("code.py"), entry("data/raw/reviews.csv")],
            "params": {
                "params.yaml": {"prepare": params["prepare"]},
                "pyproject.toml": {"tool.pins.torch": "2.13.0"},
            },
            "outs": [entry("made")],
        },
        "second": {
            "cmd": "two",
            "deps": [entry("made/a.txt")],
            "params": {"params.yaml": {"finetune.epochs": params["finetune"]["epochs"]}},
        },
    }
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": written}))


def pin_another_torch(project: Project) -> None:
    text = Path("pyproject.toml").read_text()
    Path("pyproject.toml").write_text(text.replace('torch = "2.13.0"', 'torch = "9"'))


CHANGES: dict[str, tuple[Any, list[str]]] = {
    "nothing": (lambda p: None, ["not run", "not run"]),
    "code": (lambda p: p.append("code.py", "#"), ["run: code.py changed", "may run: below first"]),
    "data": (
        lambda p: p.append("data/raw/reviews.csv", "a,b,1,c,d\n"),
        ["run: data/raw/reviews.csv changed", "may run: below first"],
    ),
    "parameter": (
        lambda p: p.set("prepare.seed", 7),
        ["run: prepare.seed 7, was 0", "may run: below first"],
    ),
    "last stage": (lambda p: p.set("finetune.epochs", 9), ["not run", "run: finetune.epochs 9, was 4"]),
    "pin": (pin_another_torch, ["run: tool.pins.torch 9, was 2.13.0", "may run: below first"]),
    "another file": (
        lambda p: (shutil.copy("data/raw/reviews.csv", "b.csv"), p.set("prepare.path", "b.csv")),
        [
            "run: b.csv is read now; data/raw/reviews.csv is no longer read; prepare.path b.csv, "
            "was data/raw/reviews.csv",
            "may run: below first",
        ],
    ),
    "missing output": (
        lambda p: shutil.rmtree("made"),
        ["run: made is missing", "may run: below first"],
    ),
    "ignored file": (lambda p: Path("made/x.pyc").write_text("x"), ["not run", "not run"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_would_run_and_why(
    project: Project, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change, expected = CHANGES[name]
    lock()
    change(project)
    main(["check"])
    told = capsys.readouterr().out.partition("\n\n")[2]
    found = []
    for line in told.splitlines():
        if line.startswith(("first", "second")):
            state = next(s for s in ("not run", "may run", "run") if line[8:].startswith(s))
            reason = line[8 + 8 :].strip()
            found.append(f"{state}: {reason}" if reason else state)
        elif line.startswith(" "):
            found[-1] += f" {line.strip()}"
    assert found == expected
