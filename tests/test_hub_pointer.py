"""Pointer files: a hub data set at a pinned commit, from a hub on 127.0.0.1 and from the cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from stages.errors import UserError
from stages.preparing import hub
from tests import hub_server
from tests.preparing import rows, run, text, written

ROOT = Path(__file__).resolve().parents[1]
OTHER = "f" * 40
GOOD: dict[str, Any] = {
    "dataset": "owner/rows",
    "config": None,
    "revision": hub_server.COMMIT,
    "splits": {"train": "train", "test": "test"},
    "columns": {"text": "sentence"},
}
CARD = """---
dataset_info:
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype: {class_label: {names: {'0': bad, '1': good}}}
  - name: tags
    list: string
---
"""
CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from stages.errors import UserError
from tests import preparing
for path, data in json.loads(sys.argv[2]):
    try:
        said = preparing.run(data, path=path)
    except UserError as error:
        said = error.problems
    print("SAID" + json.dumps(said))
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str = "x.hub.yaml", **changes: Any) -> str:
    with Path(name).open("w", encoding="utf-8") as out:
        YAML().dump({k: v for k, v in (GOOD | changes).items() if v is not ...}, out)
    return name


def dataset() -> Path:
    folder = Path("published").resolve()
    folder.mkdir()
    columns = rows(100)
    whole = pd.DataFrame({"sentence": columns["text"], "label": [i % 2 for i in range(100)]})
    whole["tags"] = [["a"]] * 100
    whole.loc[3, "label"] = -1  # as hub data sets write that there is no label
    whole[:80].to_parquet(folder / "train.parquet")
    whole[80:].to_parquet(folder / "test.parquet")
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def prepare(endpoint: str, *cases: tuple[str, dict[str, str] | None], **more: str) -> list[Any]:
    """What each case gives, in one fresh process: `datasets` reads its settings on import."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, str(ROOT), json.dumps(cases)],
        env=os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(Path("hf").resolve())} | more,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("SAID")]


def test_rows_come_from_the_hub_and_then_from_the_cache() -> None:
    case = (write(), None)
    with hub_server.serve(dataset(), dataset=True) as hub:
        (result,) = prepare(hub.endpoint, case)
        assert hub.requests
    assert result["rows"] == {"read": 100, "kept": 99, "rejected": 1}
    assert result["splits"]["test"]["rows"] == 20
    assert result["splits"]["validation"]["rows"] > 0  # drawn from train
    assert list(result["files"]) == ["x.hub.yaml"]
    assert json.loads(Path("data/prepared/labels.json").read_bytes()) == ["bad", "good"]
    test = pd.read_parquet("data/prepared/test.parquet")
    assert list(test["text"]) == [f"text number {i}" for i in range(80, 100)]
    assert list(test["label"]) == ["bad", "good"] * 10
    assert set(test["file"]) == {"x.hub.yaml: test"}
    rejected = pd.read_parquet("data/prepared/rejected.parquet")
    assert list(rejected["line"]) == [4]
    assert list(rejected["reason"]) == ["no label"]

    before = Path("results/data.json").read_bytes()
    unheld = write("y.hub.yaml", revision=OTHER)
    again, other = prepare(hub.endpoint, case, (unheld, None), HF_HUB_OFFLINE="1")
    assert again == result
    assert Path("results/data.json").read_bytes() == before
    # `datasets` would have given the rows of the revision that it holds.
    assert other[0].startswith(f"y.hub.yaml: revision: {OTHER} is not in the local cache")


def test_what_the_hub_does_not_have() -> None:
    cases = [
        (write("a.hub.yaml", splits={"train": "trian"}), None),
        (write("b.hub.yaml", config="large"), None),
        (write("c.hub.yaml", dataset="owner/row"), None),
        (write("d.hub.yaml", columns={}), None),
        (write("e.hub.yaml", columns={"txt": "sentence"}), None),
        (write("f.hub.yaml"), {"label": "tags"}),
    ]
    with hub_server.serve(dataset(), dataset=True) as hub:
        said = prepare(hub.endpoint, *cases)
    messages = [
        "a.hub.yaml: splits: no such split on the hub, got 'trian'; did you mean 'train'?",
        "b.hub.yaml: config: not one of the data set's, got 'large'; ",
        "c.hub.yaml: dataset: not on the hub, or closed to you, got 'owner/row'; ",
        "d.hub.yaml: no column 'text'; write one of: label, sentence, tags",
        "e.hub.yaml: columns: 'txt' is not read by prepare; did you mean 'text'?",
        "f.hub.yaml: column 'tags' holds list",
    ]
    for problems, message in zip(said, messages, strict=True):
        assert message in problems[0]
        assert all("\n" not in problem for problem in problems)
    assert not written()


def test_classes_in_lists_have_their_names() -> None:
    import datasets

    tags = datasets.List(datasets.ClassLabel(names=["O", "B-x", "I-x"]))
    features = datasets.Features({"tags": tags, "text": datasets.Value("string")})
    rows = {"tags": [[0, 1, 2], [], None, [2, -1]], "text": ["a", "b", "c", "d"]}
    data = datasets.Dataset.from_dict(rows, features=features).select([1, 2, 3, 0])
    ((found, texts),) = hub.batches(data, ["tags", "text"])
    assert found.to_pylist() == [[], None, ["I-x", None], ["O", "B-x", "I-x"]]
    assert texts.to_pylist() == ["b", "c", "d", "a"]


def test_neither_network_nor_cache() -> None:
    (said,) = prepare("http://127.0.0.1:9", (write(), None), HF_HUB_OFFLINE="1")
    assert said[0] == (
        "x.hub.yaml: dataset: 'owner/rows' is not in the local cache, and the hub cannot be "
        "reached; run prepare once with network, or take the pinned commit"
    )
    assert not written()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"revision": "main"}, "revision: not a commit, and branches and tags move, got 'main'; "),
        ({"revision": "0123abc"}, "revision: not a commit"),
        ({"revision": 1234}, "revision: wrong type or form, got 1234; write a string"),
        ({"revision": ...}, "revision: missing; write a value for it"),
        ({"config": ...}, "config: missing"),
        ({"dataset": "../rows"}, "dataset: not a data set of the hub, got '../rows'; "),
        ({"dataset": "https://a.b/c"}, "dataset: not a data set of the hub"),
        ({"dataset": "local"}, "dataset: is a file or folder here, got 'local'; write its path"),
        ({"splits": {}}, "splits: no train split"),
        ({"splits": {"train": "a", "test": "a"}}, "splits: one split of the hub stands for two"),
        ({"splits": {"train": "a", "tset": "b"}}, "splits.tset"),
        ({"colums": {}}, "colums: unknown key; did you mean 'columns'?"),
        ({"trust_remote_code": True}, "trust_remote_code: unknown key"),
        ({"columns": ["text"]}, "columns: wrong type or form, got ['text']"),
    ],
)
def test_mistakes_in_a_pointer_file(changes: dict[str, Any], message: str) -> None:
    Path("local").mkdir()
    write(**changes)
    with pytest.raises(UserError) as caught:
        run(path="x.hub.yaml")
    assert any(problem.startswith(f"x.hub.yaml: {message}") for problem in caught.value.problems)
    assert not written()


def test_a_pointer_file_that_is_no_mapping_or_names_the_split_twice() -> None:
    Path("x.hub.yaml").write_text(text(rows()), encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.hub\.yaml"):
        run(path="x.hub.yaml")
    write()
    with pytest.raises(UserError, match=r"prepare\.split: x\.hub\.yaml names the splits already"):
        run(path="x.hub.yaml", split="fold")
    with pytest.raises(UserError, match=r"prepare\.header: is for CSV and TSV alone"):
        run(path="x.hub.yaml", header=["text", "label"])
