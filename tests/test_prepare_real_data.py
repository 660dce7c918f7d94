"""`prepare` on public data as published; the counts are those of ../shared/data/README.md."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

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
    result = run(path="x.tsv", quoting="none")
    assert result["rows"]["read"] == 2 * 5331
    assert not [name for name in splits() if any("\x80" <= letter < "\xa0" for letter in name)]
