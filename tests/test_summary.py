"""The last words of `make repro`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages import runs, summary
from stages.errors import UserError
from tests import fabricate

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost"]
OUTS = {
    "prepare": "results/data.json",
    "finetune": "results/training.json",
    "evaluate": "results/metrics.json",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    fabricate.write(tmp_path)
    Path("dvc.yaml").write_text(json.dumps({"stages": {name: {} for name in OUTS}}))
    write_lock()
    return tmp_path


def write_lock(inputs: str = "0", **hashes: str) -> None:
    stages: dict[str, Any] = {
        name: {
            "cmd": name,
            "deps": [{"path": "raw", "md5": inputs}],
            "outs": [{"path": path, "md5": hashes.get(name, "1")}],
        }
        for name, path in OUTS.items()
    }
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))


def commit(*files: str) -> None:
    for command in (["init", "-q"], ["add", *files], ["commit", "-qm", "x"]):
        subprocess.run([*GIT, *command], check=True)


def output(capsys: pytest.CaptureFixture[str]) -> str:
    """Of the summary; in 80 columns, always."""
    assert summary.main([]) == 0
    printed = capsys.readouterr().out
    assert all(len(line) <= 80 and line == line.rstrip() for line in printed.splitlines())
    return printed


def unwrapped(printed: str) -> str:
    return " ".join(printed.split())


def test_result_comes_first(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys).splitlines()
    assert lines[0] == "accuracy 0.842 (95% interval 0.808 to 0.873), 480 rows of the test split"
    assert lines[1].split() == ["fine-tuned", "0.842", "(0.808", "to", "0.873)"]
    assert lines[2].startswith("  TF-IDF + logistic regression")
    assert "Better than the best baseline." in lines


def test_says_when_fine_tuning_does_not_beat_the_baseline(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate.write(project, only=(5, 60))
    assert "Worse than the best baseline." in output(capsys)
    fabricate.write(project, only=(30, 28))
    assert "Not shown to be better than the best baseline." in output(capsys)


def test_without_the_predictions_the_metrics_are_shown(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a clone before `dvc pull`: git holds metrics.json and baseline.json."""
    Path("results/predictions.parquet").unlink()
    printed = output(capsys)
    assert "accuracy 0.842" in printed and "Not compared with the best baseline." in printed
    assert "results/predictions.parquet: missing; run `dvc repro`" in unwrapped(printed)


def test_what_ran_and_what_did_not(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.record("prepare", 99.0, {})
    assert summary.main(["--mark"]) == 0
    runs.record("finetune", 31.26, {"examples_per_second": 1520.4, "tokens_per_second": 38000})
    write_lock(evaluate="2")
    printed = output(capsys)
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.strip()}
    assert rows["prepare"] == ["unchanged"]
    assert rows["finetune"][:2] == ["ran", "31.3"] and rows["finetune"][-1] == "MB"
    assert rows["evaluate"] == ["restored"]
    assert rows["total"] == ["31.3"]
    assert "finetune: 1,520 rows a second, 38,000 tokens a second" in printed


def test_without_a_mark_the_last_runs_are_shown(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.record("prepare", 2.5, {})
    printed = output(capsys)
    assert "No mark" in printed and "unchanged" not in printed
    assert any(line.split()[:2] == ["prepare", "2.5"] for line in printed.splitlines())


def test_names_the_report_where_there_is_one(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "report:" not in output(capsys)
    Path("results/report.html").write_text("")
    assert "report: results/report.html" in output(capsys)


def test_same_inputs_other_bytes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit("dvc.lock")
    assert "other bytes" not in output(capsys)
    write_lock(finetune="2")
    printed = unwrapped(output(capsys))
    assert "Same inputs, other bytes than in the committed dvc.lock:" in printed
    assert "finetune: results/training.json" in printed
    assert (
        "This machine computes as cpu, float32, 2 threads, avx512; the committed result was made "
        "elsewhere." in printed
    )
    assert "evaluate: results" not in printed


def test_other_inputs_are_no_difference(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit("dvc.lock")
    write_lock(inputs="changed", finetune="2")
    assert "other bytes" not in output(capsys)


def test_the_committed_device_class_is_told_where_git_has_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit("dvc.lock", "results/metrics.json")
    write_lock(finetune="2")
    assert "so the kind of machine does not explain it" in unwrapped(output(capsys))
    file = Path("results/metrics.json")
    device = {"device": "cuda", "precision": "bf16-mixed", "threads": None}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"device_class": device}))
    assert (
        "This machine computes as cuda, bf16-mixed; the committed result was made as cpu, float32, "
        "2 threads, avx512." in unwrapped(output(capsys))
    )


def test_no_result_yet(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("results/metrics.json").unlink()
    with pytest.raises(UserError) as caught:
        summary.main([])
    assert caught.value.problems == ["results/metrics.json: missing; run `dvc repro` to make it"]
    assert "prepare" in capsys.readouterr().out


def test_colour_for_people_only(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    summary.main([])
    assert "\033" not in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    summary.main([])
    assert "\033[1m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    summary.main([])
    assert "\033" not in capsys.readouterr().out


def test_a_reader_that_leaves_early_is_no_error(project: Path) -> None:
    """`python -m stages summary | head -1`, with the pipe closed before anything is written."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "stages", "summary"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
