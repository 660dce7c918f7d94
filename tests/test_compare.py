"""`python -m workflow compare`: what it says of two states, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.errors import UserError
from tests.project import ROOT
from workflow import compare
from workflow.__main__ import main
from workflow.results import DATA, METRICS, PREDICTIONS, Results

LABELS = ["negative", "positive"]
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_text('{"stages": {}}')
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def predictions(right: int, rows: int = 100, first: int = 0) -> pd.DataFrame:
    """Rows numbered from `first`, the labels alternating, of which `right` are predicted so."""
    target = np.arange(first, first + rows) % 2
    wrong = np.arange(rows) >= right
    scores = np.where(np.arange(2)[None, :] == (target ^ wrong)[:, None], 0.9, 0.1)
    return pd.DataFrame(
        {
            "id": [f"{number:016x}" for number in range(first, first + rows)],
            "label": [LABELS[number] for number in target],
            "scores": list(scores),
        }
    )


def files(rows: pd.DataFrame, labels: list[str], **changes: Any) -> dict[str, bytes]:
    """What `evaluate` and `prepare` write of so many rows; None removes a file."""
    out = io.BytesIO()
    rows.to_parquet(out)
    right = np.stack(rows["scores"].to_list()).argmax(axis=1)
    value = float(
        np.mean([labels[k] == label for k, label in zip(right, rows["label"], strict=True)])
    )
    counts = dict.fromkeys(labels, 10)
    metrics = {
        "split": "test",
        "rows": len(rows),
        "seed": 0,
        "bootstrap": 200,
        "confidence": 0.95,
        "main_metric": "accuracy",
        "metrics": {"accuracy": {"value": value, "low": value - 0.1, "high": value + 0.1}},
    }
    data = {
        "files": {"data/raw/x.csv": changes.get("sha256", "a" * 64)},
        "rows": {"read": 500, "kept": 500, "rejected": 0},
        "splits": {"train": {"rows": 400, "labels": counts}},
    }
    found = {
        METRICS: json.dumps(metrics).encode(),
        DATA: json.dumps(data).encode(),
        PREDICTIONS: out.getvalue(),
    }
    return {
        path: content for path, content in found.items() if path not in changes.get("without", ())
    }


def state(
    name: str,
    rows: pd.DataFrame,
    labels: list[str] = LABELS,
    task: str = "classification",
    rate: float = 1e-4,
    code: str = "1",
    **changes: Any,
) -> Results:
    content = files(rows, labels, **changes)

    def read(path: str) -> bytes:
        if path not in content:
            raise FileNotFoundError(path)
        return content[path]

    deps = [{"path": "stages/finetune.py", "md5": code}, {"path": "data/raw/x.csv", "md5": code}]
    params = {
        "params.yaml": {"run.task": task, "finetune": {"learning_rate": rate, "epochs": 3}},
        "pyproject.toml": {"tool.pins.torch": code},
    }
    return Results(name, "", {"finetune": {"cmd": "x", "deps": deps, "params": params}}, read)


def told(now: Results, then: Results) -> str:
    lines = list(compare.told(now, then, compare.pair(now, then)))
    assert all(len(line) <= 80 and line == line.rstrip() for line in lines)
    return "\n".join(lines)


def test_metrics_and_the_paired_test() -> None:
    """Ten more rows are right: McNemar's p is 2 / 2^10."""
    text = told(state("now", predictions(90)), state("v1", predictions(80)))
    line = next(line for line in text.splitlines() if line.startswith("accuracy "))
    assert line.split("]")[0].split() == ["accuracy", "0.900", "[0.800,", "1.000"]
    assert "+0.100 [" in line
    assert "100 rows are in both test splits under one label." in text
    assert "Right now and wrong then: 10; wrong now and right then: 0;" in " ".join(text.split())
    assert "p = 0.002." in text
    assert "accuracy is higher now: the interval leaves out zero." in text


@pytest.mark.parametrize("scale", [1e9, 1e-5, 25.0])
def test_figures_of_any_size_stand_apart(scale: float) -> None:
    value = {"value": 1.234 * scale, "low": 1.1 * scale, "high": 1.3 * scale}
    one = {"metrics": {"mse": value}, "confidence": 0.95, "rows": 9}
    lines = list(compare._metrics(one, one, {"difference": {"mse": value}}))
    assert all(len(line) <= 80 for line in lines)
    told = " ".join(" ".join(lines[1:-1]).split())
    numbers = [float(word) for word in re.findall(r"[-+]?\d[\d.]*(?:e[-+]\d+)?", told)]
    assert numbers == pytest.approx([1.234 * scale, 1.1 * scale, 1.3 * scale] * 3, rel=0.01)
    assert "]  " in lines[1] or len(lines) > 3


def test_the_same_results_show_no_difference() -> None:
    now, then = state("now", predictions(90)), state("v1", predictions(90))
    text = told(now, then)
    assert "accuracy: no difference is shown, the interval holds zero." in text
    assert text.endswith(
        "parameters: no difference\n\ndata: no difference\n\ncode: no difference\n\nlibraries: no difference"
    )


def test_only_rows_that_both_have_are_paired() -> None:
    """And of those, only the ones under the same label."""
    then = predictions(100, rows=50, first=80)
    then.loc[[0, 1], "label"] = then.loc[[1, 0], "label"].to_numpy()
    found = compare.pair(state("now", predictions(100)), state("v1", then))
    assert (found["rows"], found["relabelled"]) == (18, 2)
    assert (found["now"], found["then"]) == (100, 50)


def test_what_differs() -> None:
    now = state("now", predictions(90), rate=3e-4, code="2.2", sha256="b" * 64)
    lines = told(now, state("v1", predictions(90), code="2.1")).splitlines()
    assert "  finetune.learning_rate: 0.0003, was 0.0001" in lines
    assert "  data/raw/x.csv: SHA-256 bbbbbbbbbbbb, was aaaaaaaaaaaa" in lines
    assert "  stages/finetune.py: changed" in lines
    assert "  torch: 2.2, was 2.1" in lines
    assert not any("epochs" in line for line in lines)


THEN: dict[str, tuple[Results, str]] = {
    "no common row": (
        state("v1", predictions(9, first=500)),
        "v1: no row of its test split is in the present one under the same label",
    ),
    "other labels": (
        state("v1", predictions(9), labels=["negative", "good"]),
        "v1: other labels (only now: 'positive'; only then: 'good')",
    ),
    "labels in another order": (
        state("v1", predictions(9), labels=LABELS[::-1]),
        "v1: other labels (in another order)",
    ),
    "another task": (
        state("v1", predictions(9), task="regression"),
        "v1: another task, regression, where now it is classification",
    ),
    "no predictions": (
        state("v1", predictions(9), without=[PREDICTIONS]),
        "v1: results/predictions.parquet is neither in DVC's cache nor in its remote",
    ),
}


@pytest.mark.parametrize("case", THEN)
def test_what_cannot_be_paired(case: str) -> None:
    then, message = THEN[case]
    with pytest.raises(UserError) as refused:
        compare.pair(state("now", predictions(90)), then)
    assert str(refused.value).startswith(message)


# The command, in a git repository without DVC.


def commit(content: dict[str, bytes], message: str) -> None:
    write(content)
    subprocess.run([*GIT, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*GIT, "add", "-A"], check=True)
    subprocess.run([*GIT, "commit", "-qm", message], check=True)


def write(content: dict[str, bytes]) -> None:
    for path, value in content.items():
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_bytes(value)


def lock() -> dict[str, bytes]:
    params = {"params.yaml": {"run.task": "classification"}}
    stages = {"evaluate": {"cmd": "python -m stages evaluate", "params": params}}
    return {"dvc.lock": json.dumps({"schema": "2.0", "stages": stages}).encode()}


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    commit(files(predictions(80), LABELS) | lock(), "the first")
    write(files(predictions(90), LABELS))
    assert main(["compare", "main"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("now   the working tree at ") and ", with changes\nthen  main: " in out
    assert "the first" in out and "+0.100 [" in out


def test_what_can_be_compared_is_told_before_the_refusal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    commit(files(predictions(80), ["a", "positive"]) | lock(), "the first")
    write(files(predictions(90), LABELS))
    assert main(["compare", "HEAD"]) == 2
    out, err = capsys.readouterr()
    assert "accuracy" in out and "same rows" not in out
    assert err.count("\n") == 1 and err.startswith("HEAD: other labels")


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        ("mian", "mian: not a revision of this repository; did you mean 'main'?"),
        ("--all", "takes one revision, got --all; write a commit, branch or tag"),
        ("empty", "empty: no results there, dvc.lock is missing"),
        ("half", "half: no results there, results/metrics.json is missing"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], revision: str, message: str) -> None:
    commit({"a": b"a"}, "nothing")
    subprocess.run([*GIT, "tag", "empty"], check=True)
    commit(lock(), "a lock alone")
    subprocess.run([*GIT, "tag", "half"], check=True)
    write(files(predictions(90), LABELS))
    assert main(["compare", revision]) == 2
    assert message in capsys.readouterr().err


def test_no_repository_and_no_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "HEAD"]) == 2
    assert "no git repository here" in capsys.readouterr().err
    commit(files(predictions(90), LABELS) | lock(), "results")
    Path(METRICS).unlink()
    assert main(["compare", "HEAD"]) == 2
    assert (
        "now: no results there, results/metrics.json is missing; run `dvc repro`"
        in capsys.readouterr().err
    )


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compair"]) == 2
    assert "no such command, got 'compair'; did you mean 'compare'?" in capsys.readouterr().err
    assert main(["compare"]) == 2
    assert "takes one revision, got none" in capsys.readouterr().err
    assert main([]) == 2 and main(["--help"]) == 0
