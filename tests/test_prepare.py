"""What becomes of each raw row."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from stages.preparing import reading
from tests.preparing import reasons, rows, run, splits, text, with_rows, write

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_columns_order_and_carried_values() -> None:
    columns = rows()
    write(columns | {"Star s": [str(i) for i in range(60)]})
    result = run(keep=["Star s"])
    parts = [pd.read_parquet(f"data/prepared/{split}.parquet") for split in reading.SPLITS]
    for part in parts:
        assert list(part) == ["id", "file", "line", "text", "label", "Star s"]
        assert part["line"].is_monotonic_increasing
        assert part["id"].str.fullmatch("[0-9a-f]{16}").all()
    whole = pd.concat(parts).sort_values("line")
    assert list(whole["line"]) == list(range(2, 62))
    assert list(whole["text"]) == columns["text"]
    assert list(whole["Star s"]) == [str(i) for i in range(60)]
    assert set(whole["file"]) == {"x.csv"}
    assert json.loads(Path("data/prepared/labels.json").read_bytes()) == ["negative", "positive"]
    assert result["rows"] == {"read": 60, "kept": 60, "rejected": 0}
    assert sum(part["rows"] for part in result["splits"].values()) == 60
    assert result["characters"]["max"] == len("text number 59")
    assert list(result["files"]) == ["x.csv"]


def test_each_reason() -> None:
    write(
        with_rows(
            ("", "positive"),
            ("\u200b\ufeff", "positive"),
            (" \x00\t", "positive"),
            ("no label here", " "),
            ("typo", "postive"),
            ("text  number\t0", "negative"),
            ("text number 0", "negative"),
            ("text number 1", "negative"),
        )
    )
    result = run({"labels": ["positive", "negative"]})
    assert reasons() == {
        3: "conflicting labels",
        62: "no text",
        64: "no text",
        65: "no label",
        66: "unknown label 'postive'; did you mean 'positive'?",
        67: "duplicate of line 2",
        68: "duplicate of line 2",
        69: "conflicting labels",
    }
    assert result["rejected"] == {
        "conflicting labels": 2,
        "duplicate": 2,
        "no label": 1,
        "no text": 2,
        "unknown label": 1,
    }
    assert result["rows"] == {"read": 68, "kept": 60, "rejected": 8}
    assert json.loads(Path("data/prepared/labels.json").read_bytes()) == ["positive", "negative"]


def test_rejected_rows_keep_what_was_read_of_them() -> None:
    raw = text(rows()).encode() + b"caf\xe9,positive\nx,y,z\n"
    Path("x.csv").write_bytes(raw)
    run(encoding="utf-8")
    rejected = pd.read_parquet("data/prepared/rejected.parquet")
    assert rejected.to_dict("list") == {
        "file": ["x.csv"] * 2,
        "line": [62, 63],
        "reason": ["undecodable bytes", "field count: has 3 fields, the header has 2"],
        "text": ["caf\ufffd", ""],
        "label": ["positive", ""],
    }


def test_a_text_in_two_given_splits_stays_in_the_smaller_one() -> None:
    columns = with_rows(("text number 0", "negative"), ("text number 1", "positive"))
    columns["split"] = ["train"] * 40 + ["dev"] * 15 + ["TEST"] * 5 + ["test", "val"]
    write(columns)
    result = run(split="split")
    assert reasons() == {2: "leak: also in test", 3: "leak: also in validation"}
    assert result["rejected"] == {"leak": 2}
    assert {name: part["rows"] for name, part in result["splits"].items()} == {
        "train": 38,
        "validation": 16,
        "test": 6,
    }


def test_conflicts_and_duplicates_over_given_splits() -> None:
    columns = with_rows(("text number 0", "positive"), ("text number 2", "negative"), ("odd", "x"))
    columns["split"] = ["train"] * 40 + ["valid"] * 10 + ["test"] * 10 + ["test", "train", "extra"]
    write(columns)
    run({"labels": ["negative", "positive"]}, split="split")
    assert reasons() == {
        2: "conflicting labels",
        62: "conflicting labels",
        63: "duplicate of line 4",
        64: "unknown split 'extra'; write train, validation or test",
    }


def test_a_missing_split_is_drawn_from_train_and_the_given_one_stays() -> None:
    Path("set").mkdir()
    columns = rows(100)
    write({name: values[:80] for name, values in columns.items()}, "set/train.csv")
    write({name: values[80:] for name, values in columns.items()}, "set/test.csv")
    result = run(path="set")
    assert result["splits"]["test"]["rows"] == 20
    assert 0 < result["splits"]["validation"]["rows"] < 40
    assert result["notes"] == ["no validation split is given: drawn from train"]
    assert list(result["files"]) == ["set/train.csv", "set/test.csv"]


def test_no_row_moves_when_others_come_go_or_change_places() -> None:
    write(rows(200))
    run()
    before = splits()
    columns = rows(400)
    write(columns)
    run()
    assert {name: split for name, split in splits().items() if name in before} == before

    order = list(range(0, 400, 3))
    random.Random(1).shuffle(order)
    after = {}
    write({name: [values[i] for i in order] for name, values in columns.items()})
    whole = splits()
    run()
    after = splits()
    assert after == {name: whole[name] for name in after}
    assert len(after) == len(order)

    run(seed=1)
    assert splits() != after


def test_a_group_stays_in_one_split() -> None:
    columns = rows(400) | {"author": [f"author {i % 40}" if i % 5 else "" for i in range(400)]}
    write(columns)
    run(group="author")
    split = splits()
    of_group: dict[str, set[str]] = {}
    for name, author in zip(columns["text"], columns["author"], strict=True):
        of_group.setdefault(author, set()).add(split[name])
    assert len(of_group.pop("")) == 3  # rows without a group are drawn one by one
    assert all(len(found) == 1 for found in of_group.values())
    assert set.union(*of_group.values()) == set(reading.SPLITS)


@pytest.mark.parametrize("seed", range(20))
def test_splits_are_near_their_shares_and_as_balanced_as_the_whole(seed: int) -> None:
    draw = random.Random(seed)
    texts = [f"{draw.random()}" for _ in range(2000)]
    write({"text": texts, "label": ["ab"[draw.random() < 0.3] for _ in texts]})
    result = run(seed=seed)
    for split, share in {"train": 0.6, "validation": 0.2, "test": 0.2}.items():
        part = result["splits"][split]
        assert abs(part["rows"] / 2000 - share) < 0.045  # four standard deviations
        assert abs(part["labels"]["b"] / part["rows"] - 0.3) < 0.1


@pytest.mark.parametrize(
    ("count", "name"), [(60, "few"), (110, "some"), (300, "fine-tuning"), (170_000, "very many")]
)
def test_the_regime_is_that_of_the_training_rows(count: int, name: str) -> None:
    write(rows(count))
    regime = run()["regime"]
    assert regime["name"] == name
    assert regime["advice"].endswith(".")


def test_the_same_bytes_again() -> None:
    write(with_rows(("text number 0", "negative")))
    files = ["data/prepared/train.parquet", "data/prepared/rejected.parquet", "results/data.json"]
    run()
    before = [Path(file).read_bytes() for file in files]
    run()
    assert [Path(file).read_bytes() for file in files] == before


def test_column_names_are_the_users(tmp_path: Path) -> None:
    columns = rows()
    write({"Review": columns["text"], "Opinion": columns["label"]})
    assert run({"text": "Review", "label": "Opinion"})["rows"]["kept"] == 60


def test_neither_torch_nor_other_heavy_libraries_are_loaded() -> None:
    write(rows())
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests import preparing; preparing.run()\n"
        "print(*{'torch', 'transformers', 'datasets', 'sklearn'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert Path("data/prepared/train.parquet").exists()
