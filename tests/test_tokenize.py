"""Token ids on disk: equal to the tokenizer's, with everything that was cut counted."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from transformers import AutoTokenizer

from stages import check, tokenize
from stages.artifacts import read_arrow, read_json, write_json, write_parquet
from stages.errors import UserError
from tests import tiny

ROOT = Path(__file__).parent.parent
TEXTS = ["the film was good", "bad", "zzz the very very good and fast phone is broken"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    tiny.make_base(tmp_path / "data/base")
    rows = pd.DataFrame({"text": TEXTS, "label": ["a", "b", "b"]})
    for split in tokenize.SPLITS:
        write_parquet(f"data/prepared/{split}.parquet", rows)
    write_json("data/prepared/labels.json", ["a", "b"])
    return tmp_path


def run(max_length: int, max_truncated: float = 1.0) -> None:
    params = tokenize.Tokenize(max_length=max_length, max_truncated=max_truncated)
    tokenize.run(params, check.load(ROOT / "params.yaml").run)


@pytest.mark.parametrize("max_length", [8, 64])
def test_ids_are_those_of_transformers(max_length: int) -> None:
    run(max_length)
    reference = AutoTokenizer.from_pretrained("data/base")
    expected = [reference(t, truncation=True, max_length=max_length)["input_ids"] for t in TEXTS]
    table = read_arrow("data/tokenized/train.arrow")
    assert table["input_ids"].to_pylist() == expected
    assert table["target"].to_pylist() == [0, 1, 1]


def test_padding_and_truncation_in_the_tokenizer_file_are_ignored() -> None:
    """all-MiniLM-L6-v2's own file cuts at 128 tokens and pads."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file("data/base/tokenizer.json")
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=20)
    tokenizer.save("data/base/tokenizer.json")
    run(64)
    lengths = [len(ids) for ids in read_arrow("data/tokenized/test.arrow")["input_ids"].to_pylist()]
    assert lengths == [6, 3, 12]


def test_counts() -> None:
    run(8)
    count = read_json("results/tokens.json")["splits"]["train"]
    assert count == {
        "rows": 3,
        "tokens": 6 + 3 + 12,
        "truncated_rows": 1,
        "truncated_tokens": 4,
        "unknown_tokens": 1,
        "length": {"p50": 6, "p90": 12, "p99": 12, "max": 12},
    }


def test_too_much_truncation_is_refused_and_leaves_nothing(folder: Path) -> None:
    with pytest.raises(UserError) as error:
        run(8, max_truncated=0.3)
    assert len(error.value.problems) == 3, "one for each split"
    assert error.value.problems[0] == (
        "params.yaml: tokenize.max_length: 33.3% of the 3 train rows are longer, got 8; write 12 "
        "to keep 99% of them whole (the longest has 12 tokens), or raise tokenize.max_truncated "
        "to 0.34"
    )
    assert not (folder / "data/tokenized").exists()
    assert not list(folder.rglob("*.partial"))


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    run(8)
    whole = read_arrow("data/tokenized/train.arrow").to_pydict()
    monkeypatch.setattr(tokenize, "CHUNK", 2)
    run(8)
    assert read_arrow("data/tokenized/train.arrow").to_pydict() == whole
