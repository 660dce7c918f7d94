"""Each format, encoding and quirk of raw files gives the same rows with the right lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import UserError
from stages.preparing import columnar, encodings, reading
from stages.preparing.delimited import Format
from stages.preparing.normalising import normalise

ROWS = [("a good one", "positive"), ("déjà “vu”, so bad", "negative"), ("it is fine", "positive")]
AUTO = {"encoding": "auto", "delimiter": "auto", "quoting": "auto", "header": None}


def read(path: str, **form: object) -> tuple[list[tuple[int, str, str]], dict[int, str], list[str]]:
    """(line, text, label) of the rows that can be read, reasons of the others by line, notes."""
    rows, reasons, notes = [], {}, list[str]()
    for source in reading.sources(path):
        for batch in reading.read(source, ["text", "label"], Format(**AUTO | form), notes):  # type: ignore[arg-type]
            texts, labels = batch.columns["text"], batch.columns["label"]
            for i, line in enumerate(batch.lines):
                if i in batch.reasons:
                    reasons[line] = batch.reasons[i]
                else:
                    rows.append((line, texts[i], labels[i]))
    return rows, reasons, notes


def csv(delimiter: str = ",", end: str = "\n") -> str:
    rows = [f'"{text}"{delimiter}{label}' for text, label in ROWS]
    return end.join([f"text{delimiter}label", *rows, ""])


def jsonl() -> str:
    return "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", csv().encode()),
        ("x.CSV", csv().encode()),
        ("x.csv", csv(end="\r\n").encode()),
        ("x.csv", csv(end="\r").encode()),
        ("x.csv", csv().rstrip("\n").encode()),
        ("x.csv", csv(";").encode()),
        ("x.csv", csv("\t").encode()),
        ("x.csv", csv("|").encode()),
        ("x.tsv", csv("\t").encode()),
        ("x.csv", csv().encode("utf-8-sig")),
        ("x.csv", csv().encode("utf-16")),
        ("x.csv", csv().encode("utf-32")),
        ("x.csv", csv().encode("utf-16-le")),
        ("x.csv", csv().encode("utf-16-be")),
        ("x.csv", csv().encode("cp1252")),
        ("x.tsv", csv("\t").replace("“", "").replace("”", "").replace('"', "").encode("cp1252")),
        ("x.csv", csv().replace("label\n", " Label \n").replace("Label", "label").encode()),
        ("x.csv", csv().replace("positive\n", "positive,,\n").encode()),
        ("x.jsonl", jsonl().encode()),
        ("x.ndjson", jsonl().encode("utf-8-sig")),
        ("x.json", jsonl().replace("\n", "\r\n").encode()),
    ],
)
def test_each_way_to_write_the_rows(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    rows, reasons, _ = read(str(tmp_path / name))
    assert not reasons
    first = 1 if "json" in name.lower() else 2
    assert [line for line, _, _ in rows] == [first, first + 1, first + 2]
    bare = [(text.replace("“", "").replace("”", ""), label) for text, label in ROWS]
    assert [(t.replace("“", "").replace("”", ""), label) for _, t, label in rows] == bare


def test_mixed_line_ends_and_marks(tmp_path: Path) -> None:
    lines = [f"{text.replace(',', '')},{label}" for text, label in ROWS]
    content = "text,label\r\n{}\n{}\r{}\r\n".format(*lines)
    (tmp_path / "x.csv").write_bytes(content.encode("utf-8-sig"))
    rows, reasons, _ = read(str(tmp_path / "x.csv"))
    assert not reasons
    assert rows == [(2 + i, t.replace(",", ""), label) for i, (t, label) in enumerate(ROWS)]


@pytest.mark.parametrize("categories", [False, True])
def test_parquet_and_numbers_as_json_has_them(tmp_path: Path, categories: bool) -> None:
    frame = pd.DataFrame({"text": ["a", None, "c"], "label": [1, 0, 1], "x": [[1], [], [2]]})
    if categories:
        frame["text"] = frame["text"].astype("category")
    frame.to_parquet(tmp_path / "x.parquet")
    rows, _, _ = read(str(tmp_path / "x.parquet"))
    assert rows == [(1, "a", "1"), (2, "", "0"), (3, "c", "1")]


def test_parquet_row_numbers_go_on_over_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnar, "BATCH", 3)
    pd.DataFrame({"text": list("abcdefgh"), "label": "x"}).to_parquet(tmp_path / "x.parquet")
    assert [line for line, _, _ in read(str(tmp_path / "x.parquet"))[0]] == list(range(1, 9))


def test_lines_are_those_on_which_rows_begin(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(
        'text,label\n\n"two\nlines",a\nx,b,c\n"bad" quote,a\nlast,b\n', encoding="utf-8"
    )
    rows, reasons, _ = read(str(file))
    assert [(line, label) for line, _, label in rows] == [(3, "a"), (7, "b")]
    assert reasons[5] == "field count: has 3 fields, the header has 2"
    assert reasons[6].startswith("quoting: text follows a closing quote")


def test_quote_characters_are_text_where_more_rows_fit_so(tmp_path: Path) -> None:
    file = tmp_path / "x.tsv"
    file.write_text(
        'text\tlabel\n"Great" they said\ta\n"never closed\tb\nplain\ta\n', encoding="utf-8"
    )
    rows, reasons, notes = read(str(file))
    assert [text for _, text, _ in rows] == ['"Great" they said', '"never closed', "plain"]
    assert not reasons
    assert "quote characters are read as text" in notes[0]


def test_one_broken_row_does_not_make_quotes_text(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(csv().replace("it is fine", 'it is "fine"'), encoding="utf-8")
    rows, reasons, notes = read(str(file))
    assert [text for _, text, _ in rows] == [text for text, _ in ROWS[:2]]
    assert list(reasons) == [4]
    assert not notes


def test_json_values_that_are_no_texts(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "label": true}',
        '{"text": "b", "label": 2.5}',
        '{"text": "c", "label": null}',
        "",
        '{"text": "d"',
        '["text", "e"]',
        '{"text": ["f"], "label": "x"}',
        "[" * 100_000,
        '{"text": "\\ud800", "label": "x"}',
        '{"label": "x"}',
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows, reasons, _ = read(str(tmp_path / "x.jsonl"))
    assert rows == [(1, "a", "true"), (2, "b", "2.5"), (3, "c", ""), (10, "", "x")]
    assert reasons[5].startswith("not JSON: Expecting")
    assert reasons[6] == "not JSON: no object in braces"
    assert reasons[7] == "not a text: column 'text' holds a list or object"
    assert reasons[8].startswith("not JSON")
    assert reasons[9] == "undecodable bytes"


def test_a_folder_of_split_files(tmp_path: Path) -> None:
    for name in ("train.csv", "Dev.tsv", "test.jsonl", "README.md", "categories.json"):
        (tmp_path / name).write_bytes(b"x")
    found = [(Path(s.file).name, s.split) for s in reading.sources(str(tmp_path))]
    assert found == [("train.csv", "train"), ("Dev.tsv", "validation"), ("test.jsonl", "test")]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("Das Gerät läuft großartig – Käufer zufrieden\n" * 3, "cp1252"),
        ("It’s great, £5 for a café lunch\n", "cp1252"),
        ("Очень хороший товар, рекомендую всем\n" * 3, "cp1251"),
        ("Очень хороший товар, рекомендую всем\n" * 3, "koi8_r"),
        ("とても良い商品です。おすすめします。\n" * 3, "cp932"),
        ("非常好的产品,推荐给大家。质量太差了,一天就坏了。\n" * 3, "gb18030"),
    ],
)
def test_a_guessed_encoding_is_right_and_said(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "x.csv").write_bytes(content.encode(found))
    notes: list[str] = []
    name = encodings.codec(str(tmp_path / "x.csv"), "auto", notes)
    assert content.encode(found).decode(name) == content
    assert f"detected {name}" in notes[0]


def test_a_damaged_line_of_utf8_costs_its_row_alone(tmp_path: Path) -> None:
    lines = [f"é number {i},a\n".encode() for i in range(50)]
    lines[7] = b"caf\xe9,a\n"
    (tmp_path / "x.csv").write_bytes(b"text,label\n" + b"".join(lines))
    rows, reasons, notes = read(str(tmp_path / "x.csv"))
    assert len(rows) == 49
    assert reasons == {9: "undecodable bytes"}
    assert "save for 1 of its lines" in notes[0]


def test_a_declared_encoding_is_used(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("text,label\nжар,a\n".encode("cp866"))
    assert read(str(tmp_path / "x.csv"), encoding="cp866")[0] == [(2, "жар", "a")]


def test_a_field_of_200_kb_and_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"text,label\n{'x' * 200_000},a\nn\0l,b\n", encoding="utf-8")
    rows, _, _ = read(str(tmp_path / "x.csv"))
    assert [len(text) for _, text, _ in rows] == [200_000, 3]


def test_a_file_written_to_meanwhile_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(csv(), encoding="utf-8")

    def append() -> None:
        with reading.unchanged(str(file)):
            file.write_text(csv() * 2, encoding="utf-8")

    def remove() -> None:
        with reading.unchanged(str(file)):
            file.unlink()

    act: Callable[[], None]
    for act in (append, remove):
        with pytest.raises(UserError, match="changed while it was read"):
            act()


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("e\u0301", "é"),
        ("a\tb\r\nc", "a b c"),
        ("  a  \u00a0 b\u2003", "a b"),
        ("\ufeffa\x00b\x1b[0m\x7f", "ab[0m"),
        ("cut \x97 here", "cut here"),
        ("next\x85line", "next line"),
        ("e\x00\u0301", "é"),
        ("👩\u200d👧 מ", "👩\u200d👧 מ"),
        (" \t\n", ""),
    ],
)
def test_normal_form(raw: str, clean: str) -> None:
    assert normalise(raw) == clean


@given(st.text())
def test_the_normal_form_of_a_normal_form_is_itself(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def lines_of(count: int, delimiter: str, strange: dict[int, str]) -> str:
    plain = [strange.get(i, f"text {i}{delimiter}{'ab'[i % 2]}") for i in range(count)]
    return "\n".join([f"text{delimiter}label", *plain, ""])


@pytest.mark.parametrize(
    ("name", "strange"),
    [
        ("x.tsv", {1500: '"hello there\ta', 1900: 'the screen has 24"\tb'}),
        ("x.csv", {1500: '"hello there,a', 1900: 'the screen has 24",b'}),
        ("x.csv", {1500: '"hello there,a', 1900: 'a 5" screen,b', 1950: '"and" so,a'}),
    ],
)
def test_what_a_stray_quote_swallows_is_counted(
    tmp_path: Path, name: str, strange: dict[int, str]
) -> None:
    """Quotes that come after the first thousand lines cannot be told from a sample."""
    delimiter = "\t" if name.endswith(".tsv") else ","
    (tmp_path / name).write_text(lines_of(2000, delimiter, strange))
    rows, reasons, _ = read(str(tmp_path / name))
    assert len(rows) + len(reasons) == 2000
    assert len(reasons) >= 401 and all(one.startswith("quoting") for one in reasons.values())
    assert not any("\n" in text for _, text, _ in rows)
    if len(strange) == 2:  # where quotes are text, nothing is lost
        rows, reasons, _ = read(str(tmp_path / name), quoting="none")
        assert len(rows) == 2000 and not reasons


def test_a_text_longer_than_the_first_lines_is_one_text(tmp_path: Path) -> None:
    long = "\n\n".join(f"paragraph {i}, of many" for i in range(700))
    content = f'text,label\n"{long}",a\n' + "".join(f"text {i},b\n" for i in range(60))
    (tmp_path / "x.csv").write_text(content)
    rows, reasons, notes = read(str(tmp_path / "x.csv"))
    assert len(rows) == 61 and not reasons and not notes
    assert rows[0][1] == long


def test_a_text_of_lines_with_a_comma_each_is_one_text(tmp_path: Path) -> None:
    recipe = "\n".join(f"{i} cups flour, sifted" for i in range(11))
    plain = "".join(f"text {i},a\n" for i in range(400))
    (tmp_path / "x.csv").write_text(f'text,label\n{plain}"{recipe}",b\n')
    rows, reasons, notes = read(str(tmp_path / "x.csv"))
    assert rows[-1] == (402, recipe, "b") and len(rows) == 401 and not reasons and not notes
    table = recipe.replace(", ", ",")  # which looks like rows, and is refused, not taken for them
    (tmp_path / "x.csv").write_text(f'text,label\n{plain}"{table}",b\n')
    rows, reasons, _ = read(str(tmp_path / "x.csv"))
    assert len(rows) == 400 and len(reasons) == 11
    assert len(read(str(tmp_path / "x.csv"), quoting="quoted")[0]) == 401


def test_a_quote_that_the_last_lines_open_is_text(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(lines_of(50, "\t", {48: '"unclosed\ta'}))
    rows, reasons, notes = read(str(tmp_path / "x.tsv"))
    assert len(rows) == 50 and not reasons and "quote characters are read as text" in notes[0]


def test_a_space_that_begins_a_text_stays(tmp_path: Path) -> None:
    """Entities and answers count characters from there."""
    (tmp_path / "x.csv").write_text('text,label\n Anna,"a"\n')
    assert read(str(tmp_path / "x.csv"))[0] == [(2, " Anna", "a")]


def test_spaces_before_quotes_and_rows_of_delimiters(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('"text", "label"\n"a, b", "good"\n,\n" ",\n"c", "bad"\n')
    assert read(str(tmp_path / "x.csv"))[:2] == ([(2, "a, b", "good"), (5, "c", "bad")], {})


def test_what_is_missing_in_json_is_empty(tmp_path: Path) -> None:
    lines = ['{"text ": NaN, "label": null}', '{"text ": "x", "label": NaN}', '{"text": "y"}']
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    rows, reasons, _ = read(str(tmp_path / "x.jsonl"))
    assert rows == [(1, "", ""), (2, "x", ""), (3, "y", "")] and not reasons
    pd.DataFrame({"text": ["a", "b"], "label": [1.5, float("nan")]}).to_parquet(
        tmp_path / "x.parquet"
    )
    assert [label for _, _, label in read(str(tmp_path / "x.parquet"))[0]] == ["1.5", ""]


def test_an_object_with_a_list_named_data_is_no_squad(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"data": [{"text": "a", "label": "b"}]}')
    with pytest.raises(UserError, match="no column 'text'; write one of: data"):
        read(str(tmp_path / "x.json"))


def test_a_split_in_another_format_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(csv())
    (tmp_path / "train.csv.dvc").write_text("outs: []")
    (tmp_path / "notes.md").write_text("of the data")
    (tmp_path / "test.py").write_text("of the data")
    assert [source.split for source in reading.sources(str(tmp_path))] == ["train"]
    (tmp_path / "test.xlsx").write_text("a table")
    with pytest.raises(UserError, match=r"test.xlsx: not a known format, by its ending '.xlsx'"):
        reading.sources(str(tmp_path))
