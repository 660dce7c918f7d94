"""The data sets in data/raw are what their cards say, and each task can read its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tasks
from stages import check, prepare
from tests.project import ROOT


def test_every_instruction_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of no benchmark, for no causal base ships with the project."""
    monkeypatch.chdir(ROOT)
    path = tmp_path / "params.yaml"
    path.write_bytes(Path("params.yaml").read_bytes())
    values = {"run.task": "generation", "prepare.path": "data/raw/instructions.jsonl"}
    tasks.put(path, values | {"prepare.keep": []})
    params = check.load(path)
    kept, rejected, _, _ = prepare.inspect(params.sections["prepare"], params.run)
    assert rejected["reason"].tolist() == []
    card = Path("data/raw/README.md").read_text(encoding="utf-8").split("# instructions.jsonl\n")[1]
    assert card.strip().startswith(f"{len(kept)} ")


@pytest.mark.parametrize("name", tasks.SHIPPED)
def test_every_row_is_used(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    of = tasks.SHIPPED[name]
    path = tmp_path / "params.yaml"
    path.write_bytes(Path("params.yaml").read_bytes())
    own = {f"tasks.{of.task}.data.{key}": value for key, value in of.data.items()}
    tasks.put(path, {"run.task": of.task, "prepare.keep": []} | of.params | own)
    params = check.load(path)
    kept, rejected, _, _ = prepare.inspect(params.sections["prepare"], params.run)
    assert rejected["reason"].tolist() == []
    file = Path(params.sections["prepare"].path).name
    card = Path("data/raw/README.md").read_text(encoding="utf-8").split(f"# {file}\n")[1]
    assert f"{len(kept):,} " in card.split("|")[0], "the card says how many rows there are"
