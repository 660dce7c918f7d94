"""Stage files: written whole or not at all, and byte for byte the same for the same content.

Every writer fills a sibling `<name>.partial` and renames it into place, so a reader (or a run
killed at any moment) never meets half a file. Names are fixed, so what a killed run left is
replaced by the next one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REMEDIES = dict.fromkeys(_FULL, "free some space, or raise the limit, and run again") | {
    errno.EROFS: "its disk may only be read; move the project to another one",
    errno.EACCES: "give yourself the right to write there",
    errno.EPERM: "give yourself the right to write there",
    errno.ENOTDIR: "a file is in the place of its folder; move it away",
    errno.EEXIST: "a file is in the place of its folder; move it away",
    errno.EIO: "the disk fails; write to another one",
}


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path to write to; on success it becomes `path`, on any error it is removed.

    What is written may be a file or a folder. It is flushed to disk before the rename.

    Raises:
        UserError: the disk is full, or the place cannot be written to.
    """
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    with _explaining(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        yield from _replacing(target, partial)


def _replacing(target: Path, partial: Path) -> Iterator[Path]:
    try:
        yield partial
        for file in [partial, *partial.rglob("*")]:
            if file.is_file():
                file.chmod(0o644)  # safetensors writes 0600, which team mates cannot read
                _flush(file)
        if target.is_dir() or partial.is_dir():
            _remove(target)
        os.replace(partial, target)
    finally:
        _remove(partial)


@contextmanager
def _explaining(target: Path) -> Iterator[None]:
    """Raise UserError for what the system says against writing `target`, whoever passes it on:
    Python and Arrow as an errno, safetensors and tokenizers in their texts only."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        if code is None and (match := re.search(r"\bos error (\d+)\b", str(error))):
            code = int(match[1])
        file = getattr(error, "filename", None)
        ours = file is None or Path(file).absolute().is_relative_to(target.parent.absolute())
        if code not in _REMEDIES or not (ours or code in _FULL):
            raise
        place = target.as_posix().replace(".partial/", "/")  # a file of a folder being written
        raise UserError(
            f"{place}: cannot be written ({os.strerror(code)}); {_REMEDIES[code]}"
        ) from error


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """`replacing`, with the folder already made."""
    with replacing(path) as partial:
        partial.mkdir()
        yield partial


def write_text(path: str | Path, text: str) -> None:
    """UTF-8, with `\\n` line ends on every system."""
    with replacing(path) as partial:
        partial.write_bytes(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Indented, keys in the order given, NaN refused (it is no JSON)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """The values that JSON can hold: without infinities and what is no number."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def read_json(path: str | Path) -> Any:
    """The content of a JSON file that another stage wrote."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run `dvc repro` to make it") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); delete it and run `dvc repro`") from None


def write_parquet(path: str | Path, frame: pd.DataFrame) -> None:
    """zstd-compressed, without pandas' index and metadata (they name library versions)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_parquet(path: str | Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A Parquet file that another stage wrote."""
    import pandas as pd

    try:
        return pd.read_parquet(path, columns=columns)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run `dvc repro` to make it") from None


def write_arrow(path: str | Path, table: pa.Table) -> None:
    """Arrow IPC file, uncompressed, so that `read_arrow` can map it into memory."""
    import pyarrow as pa

    with (
        replacing(path) as partial,
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def read_arrow(path: str | Path) -> pa.Table:
    """The table of an Arrow IPC file, mapped into memory: nothing is copied or read ahead."""
    import pyarrow as pa

    if not Path(path).exists():
        raise UserError(f"{path}: missing; run `dvc repro` to make it")
    return pa.ipc.open_file(pa.memory_map(str(path), "rb")).read_all()


def column(values: np.ndarray) -> pa.Array:
    """Numbers [n] or [n, k] as a column of a table."""
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(values.ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def numbers(values: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers as [n], one of lists of equal size as [n, k]."""
    import pyarrow.types as kinds

    if not kinds.is_fixed_size_list(values.type):
        return values.to_numpy()
    whole = values.combine_chunks()
    return whole.flatten().to_numpy(zero_copy_only=False).reshape(-1, values.type.list_size)


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(file: Path) -> None:
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
