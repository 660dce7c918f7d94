"""Stage files: whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from stages import artifacts
from stages.errors import UserError


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_no_half_one(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "out"
    artifacts.write_text(target, "old")
    with pytest.raises(error), artifacts.replacing(target) as partial:
        partial.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for name in ("first", "second"):
        with artifacts.replacing_folder(target) as folder:
            (folder / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["second"]


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/half").write_text("half")
    with artifacts.replacing_folder(tmp_path / "out") as folder:
        (folder / "whole").write_text("whole")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "whole"]


def test_parquet_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["ä", "b"], "number": [1, 2]})
    artifacts.write_parquet(tmp_path / "a", frame)
    artifacts.write_parquet(tmp_path / "b", frame.set_axis([7, 8]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert artifacts.read_parquet(tmp_path / "a").equals(frame)


def test_reading_what_is_not_there_names_the_remedy(tmp_path: Path) -> None:
    for read in (artifacts.read_json, artifacts.read_parquet, artifacts.read_arrow):
        with pytest.raises(UserError, match="missing; run `dvc repro` to make it"):
            read(tmp_path / "absent")
    (tmp_path / "bad").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        artifacts.read_json(tmp_path / "bad")


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(tmp_path / "a", float("nan"))
    assert not list(tmp_path.iterdir())
