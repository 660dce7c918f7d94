"""Which data and parameters `prepare` refuses, with what words, and that it loses no row."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages import __main__, artifacts, prepare
from stages import params as parameters
from stages.errors import UserError
from stages.preparing import reading
from tests.preparing import SECTION, rows, run, text, with_rows, write, written


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


GOOD = text(rows())
QUOTED = {"quoting": "quoted"}
TORN = "text,label,split\n" + "".join(
    f"text {i},{'ab'[i % 2]},{'train' if i < 40 else 'test'}\n" for i in range(60)
)
NO_HEADER = text(rows(), header=False)
BAD: list[tuple[str, dict[str, bytes | str], dict[str, Any], str]] = [
    ("missing file", {}, {}, "params.yaml: prepare.path: no such file, got 'x.csv'"),
    ("near name", {"y.csv": GOOD}, {}, "did you mean 'y.csv'?"),
    ("folder of a file", {"x.csv": GOOD}, {"path": "x.csv/y.csv"}, "cannot be read (Not a dir"),
    ("missing folder", {}, {"path": "a/b/c.csv"}, "no such file, got 'a/b/c.csv'"),
    ("empty file", {"x.csv": ""}, {}, "x.csv: is empty"),
    ("empty JSON", {"x.jsonl": ""}, {"path": "x.jsonl"}, "x.jsonl: no rows"),
    ("blank lines", {"x.csv": "\n\n \n"}, {}, "x.csv: no column 'text'"),
    ("only a mark", {"x.csv": b"\xef\xbb\xbf"}, {}, "x.csv: "),
    ("header only", {"x.csv": "text,label\n"}, {}, "x.csv: no rows"),
    ("ending", {"x.xml": GOOD}, {"path": "x.xml"}, "not a known format, by its ending '.xml'"),
    ("no ending", {"x": GOOD}, {"path": "x"}, "not a known format, by its ending ''"),
    ("gzip", {"x.csv": b"\x1f\x8b\x08rest"}, {}, "x.csv: is compressed by gzip"),
    ("bzip2", {"x.csv": b"BZh91AY"}, {}, "compressed by bzip2"),
    ("xz", {"x.csv": b"\xfd7zXZ\x00"}, {}, "compressed by xz"),
    ("zstd", {"x.csv": b"\x28\xb5\x2f\xfd"}, {}, "compressed by zstd"),
    ("sheet", {"x.xlsx": b"PK\x03\x04"}, {"path": "x.xlsx"}, "a zip archive or a spreadsheet"),
    ("old sheet", {"x.csv": b"\xd0\xcf\x11\xe0"}, {}, "a spreadsheet of old Excel"),
    ("pdf", {"x.csv": b"%PDF-1.7"}, {}, "x.csv: is a PDF"),
    ("database", {"x.csv": b"SQLite format 3\0"}, {}, "an SQLite database"),
    ("Parquet as CSV", {"x.csv": b"PAR1xxxx"}, {}, "is Parquet; rename it"),
    ("CSV as Parquet", {"x.parquet": GOOD}, {"path": "x.parquet"}, "not readable as Parquet"),
    ("JSON array", {"x.json": '[{"text": 1}]'}, {"path": "x.json"}, "is one JSON array"),
    ("JSON keys", {"x.jsonl": '{"txt": "a"}\n'}, {"path": "x.jsonl"}, "did you mean 'txt'?"),
    ("no JSON", {"x.jsonl": GOOD}, {"path": "x.jsonl"}, "61 of 61 rows cannot be used"),
    ("header and JSON", {"x.jsonl": "{}"}, {"path": "x.jsonl", "header": ["text"]}, "is for CSV"),
    ("text column", {"x.csv": GOOD.replace("text,", "texts,")}, {}, "did you mean 'texts'?"),
    ("label column", {"x.csv": GOOD.replace(",label", ",y")}, {}, "no column 'label'; write one"),
    ("no header", {"x.csv": NO_HEADER}, {}, "name the columns in prepare.header"),
    ("both", {"x.csv": GOOD}, {"header": ["text", "label"]}, "x.csv, line 1: is a header"),
    ("doubled", {"x.csv": GOOD.replace("label", "text", 1)}, {}, "'text' occurs 2 times"),
    ("keep", {"x.csv": GOOD}, {"keep": ["domain"]}, "x.csv: no column 'domain'"),
    ("keep taken", {"x.csv": GOOD}, {"keep": ["line"]}, "prepare.keep: prepared rows have"),
    ("split column", {"x.csv": GOOD}, {"split": "fold"}, "x.csv: no column 'fold'"),
    ("group column", {"x.csv": GOOD}, {"group": "who"}, "x.csv: no column 'who'"),
    ("wrong split", {"x.csv": GOOD}, {"split": "label"}, "unknown split 'negative'"),
    ("open quote", {"x.csv": GOOD + '"open,a\n'}, QUOTED, "x.csv, line 62: a quote opened here"),
    ("ragged", {"x.csv": "text,label\n" + "a,b,c\n" * 9}, {}, "field count: 9 rows"),
    ("delimiter", {"x.csv": GOOD}, {"delimiter": ";"}, "x.csv: no column 'text'"),
    ("one label", {"x.csv": GOOD.replace("positive", "negative")}, {}, "one label only"),
    ("no labels", {"x.csv": GOOD.replace("positive", "").replace("negative", "")}, {}, "no label:"),
    ("same text", {"x.csv": "text,label\n" + "a,b\n" * 9}, {}, "duplicate: 8 rows, first in"),
    ("conflicts", {"x.csv": "text,label\n" + "a,b\na,c\n" * 9}, {}, "conflicting labels: 18 rows"),
    ("two rows", {"x.csv": "text,label\na,b\nc,d\n"}, {}, "split is empty (rows: train"),
    ("tiny share", {"x.csv": GOOD}, {"test": 0.0001}, "the test split is empty"),
    (
        "rare label",
        {"x.csv": GOOD + "once,odd\n"},
        {"seed": 4, "test": 0.6},
        "has no training row",
    ),
    ("UTF-16 declared", {"x.csv": GOOD}, {"encoding": "utf-16"}, "x.csv: not valid"),
    ("mark denied", {"x.csv": GOOD.encode("utf-16")}, {"encoding": "cp1252"}, "byte order mark of"),
    ("half a letter", {"x.csv": GOOD.encode("utf-16")[:-1]}, {}, "x.csv: not valid utf-16"),
    ("bytes", {"x.csv": bytes(range(128, 256)) * 9}, {}, "x.csv: "),
    ("PNG", {"x.csv": b"\x89PNG\r\n\x1a\n" + bytes(range(256))}, {}, "x.csv: "),
    ("empty folder", {"set/README.md": "x"}, {"path": "set"}, "a folder without train.csv"),
    (
        "two files a split",
        {"set/train.csv": GOOD, "set/train.tsv": GOOD},
        {"path": "set"},
        "two files for the train split: set/train.csv, set/train.tsv",
    ),
    (
        "two problems in two files",
        {"set/train.csv": "a,b\n1,2\n", "set/test.csv": ""},
        {"path": "set"},
        "set/test.csv: is empty",
    ),
    (
        "split twice",
        {"set/train.csv": GOOD},
        {"path": "set", "split": "label"},
        "prepare.split: set names the splits already; write null",
    ),
    ("zero bytes", {"x.csv": b"\0" * 5000}, {}, "x.csv: "),
    (
        "texts of zero bytes",
        {"x.csv": "text,label\n" + "".join("\0" * (i % 7 + 1) + ",a\n" for i in range(30))},
        {},
        "no text: 30 rows, first in x.csv, line 2",
    ),
    ("zero bytes for a label", {"x.csv": GOOD.replace("positive", "\0")}, {}, "one label only"),
    (
        "a mark that is denied",
        {"x.csv": b"\xef\xbb\xbf" + GOOD.encode()},
        {"encoding": "cp1252"},
        "x.csv: begins with the byte order mark of utf-8-sig",
    ),
    ("mark of another", {"x.csv": b"\xff\xfe" + GOOD.encode()}, {}, "x.csv: "),
    ("long header", {"x.csv": "y" * 200_000 + ",label\na,b\n"}, {}, "no column 'text'"),
    ("long file name", {}, {"path": "x" * 300 + ".csv"}, "prepare.path: cannot be read (File n"),
    (
        "long broken JSON",
        {"x.jsonl": '{"text": "' + "y" * 200_000 + "\n"},
        {"path": "x.jsonl"},
        "1 of 1 rows cannot be used",
    ),
    (
        "mixed line ends and a missing column",
        {"x.csv": "text\r\na\nb\rc\r\n"},
        {},
        "x.csv: no column 'label'",
    ),
    ("folder for a file", {"x.csv/a.txt": "a"}, {}, "x.csv: a folder without train.csv"),
    (
        "folder for a split file",
        {"set/train.csv/a.txt": "a"},
        {"path": "set"},
        "set: a folder without train.csv",
    ),
    (
        "given split without rows",
        {"set/train.csv": GOOD, "set/test.csv": "text,label\n"},
        {"path": "set"},
        "set/test.csv: no rows",
    ),
    (
        "given split without usable rows",
        {"set/train.csv": GOOD, "set/test.csv": "text,label\n,positive\n"},
        {"path": "set"},
        "set: the test split is empty",
    ),
    (
        "one label in a declared pair",
        {"x.csv": GOOD.replace("positive", "negative")},
        {"labels": ["negative", "positive"]},
        "label 'positive' has no training row",
    ),
    (
        "nothing but near copies",
        {"x.csv": "text,label\n" + "".join(f"{'so it is ' * 9}{i},a\n" for i in range(30))},
        {"near_duplicates": 0.5},
        "near duplicate: ",
    ),
    (
        "torn group",
        {"x.csv": TORN},
        {"split": "split", "group": "label"},
        "prepare.group: 2 groups of 'label' occur in several",
    ),
]


@pytest.mark.parametrize(
    ("files", "section", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_data_is_refused(
    files: dict[str, bytes | str],
    section: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    data = {key: section.pop(key) for key in ("labels",) if key in section}
    monkeypatch.setattr(__main__, "run_stage", lambda name: run(data, **section))
    assert __main__.main(["prepare"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert all(line.isprintable() and len(line) < 1000 for line in said.splitlines())
    assert not written()


def test_a_pipe_is_no_file() -> None:
    os.mkfifo("x.csv")  # to open it would wait for ever
    with pytest.raises(UserError, match=r"prepare\.path: not a file or folder, got 'x\.csv'"):
        run()


@pytest.mark.parametrize("change", ["append", "same size", "replace", "remove"])
def test_a_file_that_changes_while_it_is_read(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(rows())
    raw = Path("x.csv")
    sha256 = artifacts.sha256

    def act(path: str) -> str:
        found = sha256(path)
        if change == "append":
            raw.write_bytes(raw.read_bytes() + b"one more,positive\n")
        elif change == "same size":
            raw.write_bytes(raw.read_bytes().replace(b"number 7", b"number_7"))
        elif change == "replace":
            before = raw.stat()
            Path("y.csv").write_bytes(raw.read_bytes())
            os.utime("y.csv", ns=(before.st_atime_ns, before.st_mtime_ns))
            os.replace("y.csv", raw)
        else:
            raw.unlink()
        return found

    monkeypatch.setattr(artifacts, "sha256", act)
    with pytest.raises(UserError, match=r"x\.csv: changed while it was read; run again"):
        run()
    assert not written()


def test_outputs_that_cannot_be_written_leave_the_earlier_ones_alone() -> None:
    write(rows())
    run()
    before = {path: path.read_bytes() for path in Path("data").rglob("*.*")}
    write(with_rows(("one more", "positive")))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"data/prepared/train\.parquet: cannot be written"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in Path("data").rglob("*.*")} == before
    for folder in ("data", "results"):
        shutil.rmtree(folder)
        Path(folder).write_text("in the way", encoding="utf-8")
        with pytest.raises(UserError, match=f"{folder}/.*: cannot be written .*file is in the pl"):
            run()
        Path(folder).unlink()
        run()


def test_a_column_of_texts_is_no_label() -> None:
    write(rows(300))
    for labels in ([], ["negative", "positive"]):
        with pytest.raises(UserError, match="'text' has 300 different labels among 300"):
            run({"text": "label", "label": "text", "labels": labels})


def test_a_declared_label_without_training_rows_is_named() -> None:
    write(rows())
    with pytest.raises(UserError, match="label 'neutral' has no training row"):
        run({"labels": ["negative", "neutral", "positive"]})


def test_a_refusal_leaves_earlier_outputs_alone() -> None:
    write(rows())
    run()
    before = Path("data/prepared/train.parquet").read_bytes()
    Path("x.csv").write_text("text,label\n", encoding="utf-8")
    with pytest.raises(UserError):
        run()
    assert Path("data/prepared/train.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"encoding": "utf8x"},
            "prepare.encoding: not a known encoding, got 'utf8x'; did you mean 'utf-8'?",
        ),
        ({"encoding": "cp125"}, "did you mean 'cp1252'?"),
        (
            {"encoding": "base64"},
            "prepare.encoding: not a known encoding, got 'base64'; write one of",
        ),
        ({"delimiter": "::"}, "prepare.delimiter: not a delimiter, got '::'; write auto"),
        ({"delimiter": '"'}, "prepare.delimiter: not a delimiter"),
        ({"quoting": "non"}, "prepare.quoting: not a known value, got 'non'; did you mean 'none'?"),
        ({"header": ["a", "a"]}, "prepare.header: a name is listed twice"),
        ({"header": []}, "prepare.header: no names; write the names of all columns, or null"),
        ({"keep": [" "]}, "prepare.keep: an empty name"),
        ({"test": 0.5, "validation": 0.5}, "prepare.test: 0.5 and 0.5 for validation leave no row"),
        ({"test": 0}, "prepare.test: out of range, got 0"),
        (
            {"near_duplicates": 0.3},
            "prepare.near_duplicates: so many rows would count as copies, got 0.3; write 0.5 to 0.99",
        ),
        ({"near_duplicates": 1}, "prepare.near_duplicates: out of range, got 1"),
        ({"near_duplicates": -0.1}, "prepare.near_duplicates: out of range, got -0.1"),
        ({"seed": -1}, "prepare.seed: out of range, got -1"),
        ({"path": ""}, "prepare.path: "),
    ],
)
def test_bad_parameters_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        prepare.Prepare(**SECTION | section)
    lines = parameters.problems(caught.value, prepare.Prepare, "prepare")
    assert message in "\n".join(lines)


def holds(act: Callable[[], dict[str, Any]]) -> None:
    """Every row is kept or rejected, or the data is refused and nothing written."""
    try:
        result = act()
    except UserError as error:
        assert error.problems
        assert not written()
        return
    parts = [
        pd.read_parquet(f"data/prepared/{name}.parquet") for name in (*reading.SPLITS, "rejected")
    ]
    lines = [line for part in parts for line in part["line"]]
    assert len(lines) == len(set(lines)) == result["rows"]["read"]
    assert sum(result["rejected"].values()) == len(parts[-1]) == result["rows"]["rejected"]
    assert len({text for part in parts[:3] for text in part["text"]}) == result["rows"]["kept"]


labels = st.sampled_from(["negative", "positive", " positive ", "", "other", "\0", "é"])
cases = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@cases
@given(
    st.lists(st.tuples(st.text(), labels), max_size=30),
    st.sampled_from(["csv", "tsv", "jsonl", "parquet"]),
)
def test_random_tables(more: list[tuple[str, str]], kind: str) -> None:
    columns = with_rows(*((t.encode("utf-8", "replace").decode(), label) for t, label in more))
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        if kind == "parquet":
            pd.DataFrame(columns).to_parquet("x.parquet")
        elif kind == "jsonl":
            pd.DataFrame(columns).to_json("x.jsonl", orient="records", lines=True)
        else:
            content = text(columns, "\t" if kind == "tsv" else ",")
            Path(f"x.{kind}").write_bytes(content.encode())

        def act() -> dict[str, Any]:
            result = run({"labels": ["negative", "positive"]}, path=f"x.{kind}", quoting="quoted")
            assert result["rows"]["read"] >= 60
            return result

        holds(act)


@cases
@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "jsonl"]), st.booleans())
def test_random_bytes(junk: bytes, kind: str, above: bool) -> None:
    good = GOOD.replace(",", "\t") if kind == "tsv" else GOOD
    if kind == "jsonl":
        good = pd.DataFrame(rows()).to_json(orient="records", lines=True)
    content = junk + good.encode() if above else good.encode() + junk
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path(f"x.{kind}").write_bytes(content)
        holds(lambda: run(path=f"x.{kind}"))
