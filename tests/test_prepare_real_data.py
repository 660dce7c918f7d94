"""`prepare` on public data as published; the counts are those of ../shared/data/README.md."""

from __future__ import annotations

import csv
import json
import re
import shutil
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from stages.errors import UserError
from stages.preparing import near
from tests.preparing import reasons, run, splits

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_banking77_has_7_test_texts_in_train() -> None:
    shutil.copytree(SHARED / "banking77", "banking77")
    result = run({"label": "category"}, path="banking77")
    assert result["rows"]["read"] == 10003 + 3080
    # Texts are compared without regard to white space, so 5 more are copies within their split.
    assert result["rejected"] == {"duplicate": 5, "leak": 7}
    assert len(json.loads(Path("data/prepared/labels.json").read_bytes())) == 77
    assert result["splits"]["test"]["rows"] == 3080 - 1


def test_sms_spam_has_415_duplicates_when_case_is_ignored() -> None:
    shutil.copy(SHARED / "sms_spam" / "SMSSpamCollection", "sms.tsv")
    section: dict[str, Any] = {"path": "sms.tsv", "header": ["label", "text", "a", "b", "c"]}
    result = run(**section)
    assert result["rows"]["read"] == 5574
    # 414 and not 415: `prepare` tells letters' case apart.
    assert result["rejected"] == {"duplicate": 414}
    assert len({name.lower() for name in splits()}) == 5574 - 415
    # Its quotes are in pairs, doubled inside: they are CSV's, and read as text hide 5 copies.
    assert not [name for name in splits() if name.startswith('"') and name.endswith('"')]
    assert run(**section, quoting="none")["rejected"] == {"duplicate": 409}


def test_sms_spam_without_names_for_its_empty_columns_loses_one_row() -> None:
    shutil.copy(SHARED / "sms_spam" / "SMSSpamCollection", "sms.tsv")
    result = run(path="sms.tsv", header=["label", "text"])
    assert result["rejected"] == {"duplicate": 414, "field count": 1}
    assert reasons()[1] == "field count: has 5 fields, the header has 2"


def test_sentence_polarity_is_utf8_with_c1_controls_removed() -> None:
    lines = []
    with zipfile.ZipFile(SHARED / "nltk_sentence_polarity" / "sentence_polarity.zip") as archive:
        for name, label in (("neg", b"negative"), ("pos", b"positive")):
            content = archive.read(f"sentence_polarity/rt-polarity.{name}")
            lines += [line + b"\t" + label for line in content.splitlines()]
    Path("x.tsv").write_bytes(b"text\tlabel\n" + b"\n".join(lines) + b"\n")
    damaged = [line for line in lines if re.search("[\x80-\x9f]", line.decode())]
    assert len(damaged) == 52
    result = run(path="x.tsv", quoting="none")
    assert result["rows"]["read"] == 2 * 5331
    assert result["rejected"] == {}
    assert result["notes"] == []
    assert not [name for name in splits() if any("\x80" <= letter < "\xa0" for letter in name)]


def test_goemotions_by_its_first_label() -> None:
    shutil.copytree(SHARED / "goemotions" / "original", "go")
    result = run({"first_of": ","}, path="go", header=["text", "label", "id"])
    assert result["rows"]["read"] == 43410 + 5426 + 5427
    # 194 rows of 69 texts: without their further labels and with letters' case told apart, fewer
    # texts conflict than the 81 of README.md.
    assert result["rejected"] == {"conflicting labels": 194, "duplicate": 97, "leak": 48}
    assert set(result["splits"]["train"]["labels"]) == {str(i) for i in range(28)}
    rejected = pd.read_parquet("data/prepared/rejected.parquet")
    leaks = rejected.loc[rejected["reason"].str.startswith("leak"), "reason"]
    assert dict(leaks.value_counts()) == {"leak: also in test": 24, "leak: also in validation": 24}
    assert rejected.loc[rejected["reason"] == "conflicting labels", "text"].nunique() == 69
    texts = {
        name: [line.split("\t") for line in raw_lines(f"go/{name}.tsv")]
        for name in ("train", "dev", "test")
    }
    train = {text.lower() for text, _, _ in texts["train"]}
    assert sum(text.lower() in train for text, _, _ in texts["test"]) == 42
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for rows in texts.values():
        for text, label, _ in rows:
            labels[text.strip().lower()].add(label)
    assert sum(len(found) > 1 for found in labels.values()) == 81


def test_goemotions_with_all_its_labels_is_refused() -> None:
    shutil.copytree(SHARED / "goemotions" / "original", "go")
    with pytest.raises(UserError, match="label '0,1,20' has no training row"):
        run(path="go", header=["text", "label", "id"])


def test_near_duplicates_of_banking77_are_those_of_all_pairs() -> None:
    texts = sorted(set(raw_texts()))
    vocabulary: dict[str, int] = {}
    grams = [[vocabulary.setdefault(g, len(vocabulary)) for g in near.grams(t)] for t in texts]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in grams])])
    shape = (len(texts), len(vocabulary))
    matrix = csr_matrix((np.ones(indptr[-1]), np.concatenate(grams), indptr), shape=shape)
    shared = (matrix @ matrix.T).tocoo()
    sizes = np.diff(indptr)
    similarity = shared.data / (sizes[shared.row] + sizes[shared.col] - shared.data)
    for threshold in (0.6, 0.8):
        pairs = (similarity >= threshold) & (shared.row < shared.col)
        found = near.clusters(texts, near.signatures(texts, threshold), threshold)
        together = found[shared.row[pairs]] == found[shared.col[pairs]]
        assert len(together) > 10
        assert together.mean() >= near.RECALL
        rejected = int((found != np.arange(len(texts))).sum())
        true = csr_matrix(
            (pairs[pairs], (shared.row[pairs], shared.col[pairs])), shape=(len(texts),) * 2
        )
        assert rejected <= len(texts) - connected_components(true, directed=False)[0]


def raw_texts() -> list[str]:
    with open(SHARED / "banking77" / "test.csv", encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def raw_lines(file: str) -> list[str]:
    return Path(file).read_bytes().decode().removesuffix("\n").split("\n")
