"""`python -m stages predict` as people call it: every line of the input has its answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stages import export
from tests import exporting
from tests.project import environment

COMMAND = [sys.executable, "-m", "stages", "predict"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds models/export, and no params.yaml."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(exporting.ROOT))
        export.run(*exporting.ready())
    return folder


def call(
    folder: Path, *arguments: str, given: bytes = b"", code: int = 0
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        input=given,
        env=environment() | {"PYTHONPATH": str(exporting.ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done


def answers(*call_with: Any, **given: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in call(*call_with, **given).stdout.splitlines()]


def test_arguments_get_the_evaluated_probabilities(exported: Path) -> None:
    rows = pd.read_parquet(exported / "results/predictions.parquet").head(3)
    found = answers(exported, *rows["text"])
    for answer, (_, row) in zip(found, rows.iterrows(), strict=True):
        assert answer["text"] == row["text"]
        assert list(answer["probabilities"].values()) == pytest.approx(row["scores"], abs=1e-5)
        assert answer["label"] == exporting.LABELS[row["scores"].argmax()]


def test_each_line_of_standard_input_has_its_line(exported: Path) -> None:
    """Empty, blank, undecodable, 200 kB, with control characters and foreign line ends."""
    long = b"good " * 40_000
    given = [b"\xef\xbb\xbfa good film\r", b"", b" \t ", b"caf\xe9", long, b"a\x00 go\x07od film"]
    first, empty, blank, broken, cut, control = answers(exported, given=b"\n".join(given))
    assert first["text"] == "a good film" and first["truncated"] is False
    assert empty == {"text": "", "label": None, "reason": "no text"}
    assert blank["label"] is None and blank["reason"] == "no text"
    assert broken["text"] == "caf\ufffd" and broken["label"] is None
    assert broken["reason"] == "undecodable bytes: not UTF-8"
    assert cut["label"] in exporting.LABELS and cut["truncated"] is True
    assert control["probabilities"] == pytest.approx(first["probabilities"])


def test_a_table_is_not_read_as_texts(exported: Path) -> None:
    (exported / "rows.csv").write_text("text,label\nA text,a\n")
    told = call(exported, "--file", "rows.csv", code=2).stderr.decode()
    assert "--file: tables are not read, got '.csv'; write one object a line" in told
    (exported / "rows.json").write_text('{"text": "good"}\n')
    assert answers(exported, "--file", "rows.json")[0]["text"] == "good"


def test_texts_are_normalised_as_in_training(exported: Path) -> None:
    plain, spaced = answers(exported, "a caf\u00e9", "  a \n cafe\u0301 ")
    assert spaced["probabilities"] == pytest.approx(plain["probabilities"])


def test_json_lines(exported: Path) -> None:
    lines = ['{"text": "a good film", "id": 1}', '{"texts": "a"}', "[1]", '{"text": 5}', "{", ""]
    (exported / "rows.jsonl").write_text("\n".join([*lines, '{"text": "\\ud800"}']) + "\n")
    good, *bad = answers(exported, "--file", "rows.jsonl")
    assert good["label"] in exporting.LABELS
    assert [line["reason"] for line in bad] == [
        "no key 'text' that holds a text",
        "not JSON: no object in braces",
        "no key 'text' that holds a text",
        "not JSON",
        "no text",
        "half of a surrogate pair, which is no text",
    ]
    assert all(line["label"] is None for line in bad)


def test_a_reader_that_has_seen_enough_is_no_error(exported: Path) -> None:
    """`| head -1`: quiet, and without reading what nobody wants."""
    (exported / "many.txt").write_text("a good film\n" * 5000)
    process = subprocess.Popen(
        [*COMMAND, "--file", "many.txt", "--batch-size", "4"],
        cwd=exported,
        env=environment() | {"PYTHONPATH": str(exporting.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    assert json.loads(process.stdout.readline())["text"] == "a good film"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


def test_answers_come_while_the_input_is_still_written(exported: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--batch-size", "1"],
        cwd=exported,
        env=environment() | {"PYTHONPATH": str(exporting.ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    for text in (b"good", b"bad"):
        process.stdin.write(text + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["text"] == text.decode()
    process.stdin.close()
    assert process.stdout.read() == b"" and process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere", "a"], "nowhere: no such folder; run `dvc repro`"),
        (["--model", "data/base", "a"], "data/base/config.json: finetuning_task: missing"),
        (["--file", "nowhere.txt"], "nowhere.txt: cannot be read (No such file or directory)"),
        (["--file", "models"], "models: cannot be read (Is a directory)"),
        (["--file", "rows.txt", "a"], "texts and --file, got 'a' and 'rows.txt'"),
        (["--batch-size", "0", "a"], "--batch-size: got 0; write 1 or more"),
        (["--modle", "x"], "unrecognized arguments: --modle"),
    ],
)
def test_mistakes(exported: Path, arguments: list[str], message: str) -> None:
    assert message in call(exported, *arguments, code=2).stderr.decode()
