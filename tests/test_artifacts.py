"""Stage files: whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

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


def _python(path: Path) -> None:
    artifacts.write_text(path, "x" * 200_000)


def _arrow(path: Path) -> None:
    artifacts.write_parquet(path, FRAME)


def _mapped(path: Path) -> None:
    artifacts.write_arrow(path, pa.Table.from_pandas(FRAME))


def _safetensors(path: Path) -> None:
    with artifacts.replacing(path) as partial:
        save_file({"weight": np.ones(50_000, dtype=np.float32)}, partial)


FRAME = pd.DataFrame({"number": np.random.default_rng(0).random(50_000)})
WRITERS = [_python, _arrow, _mapped, _safetensors]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.call(command, stderr=subprocess.DEVNULL):
        pytest.skip("no right to mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk(full_disk: Path, writer: Callable[[Path], None]) -> None:
    artifacts.write_text(full_disk / "out", "old")
    with pytest.raises(UserError) as caught:
        writer(full_disk / "out")
    assert str(caught.value) == (
        f"{full_disk}/out: cannot be written (No space left on device); "
        "free some space, or raise the limit, and run again"
    )
    assert (full_disk / "out").read_text() == "old"
    assert [path.name for path in full_disk.iterdir()] == ["out"]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_limit_on_the_size_of_files(tmp_path: Path, writer: Callable[[Path], None]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"out: cannot be written \(File too large\); free"):
            writer(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_in_the_place_of_a_folder(tmp_path: Path, writer: Callable[[Path], None]) -> None:
    (tmp_path / "results").write_text("mine")
    for path in (tmp_path / "results/out", tmp_path / "results/a/out"):
        with pytest.raises(UserError, match="a file is in the place of its folder; move it away"):
            writer(path)
    assert (tmp_path / "results").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EROFS, "cannot be written (Read-only file system); its disk may only be read"),
        (errno.EACCES, "cannot be written (Permission denied); give yourself the right to write"),
        (errno.EDQUOT, "cannot be written (Disk quota exceeded); free some space"),
        (errno.EIO, "cannot be written (Input/output error); the disk fails"),
    ],
)
def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def refuse(self: Path, *arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError) as caught:
        artifacts.write_text(tmp_path / "a/out", "x")
    assert message in str(caught.value)


def test_files_of_a_folder_are_named_as_they_will_be(full_disk: Path) -> None:
    with (
        pytest.raises(UserError, match=r"/data/train\.parquet: cannot be written"),
        artifacts.replacing_folder(full_disk / "data") as folder,
    ):
        artifacts.write_parquet(folder / "train.parquet", FRAME)
    assert not list(full_disk.iterdir())


def test_errors_of_other_files_stay_what_they_are(tmp_path: Path) -> None:
    for other in (
        PermissionError(errno.EACCES, "Permission denied", "/elsewhere/input"),
        FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "out")),
    ):
        with pytest.raises(type(other)), artifacts.replacing(tmp_path / "out"):
            raise other


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
