"""Parquet and hub data sets as records; their rows are numbered from 1, for they have no lines."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from stages.errors import UserError
from stages.preparing import delimited, hub
from stages.preparing.delimited import Record

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 20_000  # rows


def parquet_records(
    file: str, columns: list[str], nested: Collection[str] = ()
) -> Iterator[Record]:
    """The rows of a Parquet file with the values of `columns`; of `nested` ones as JSON.

    Raises:
        UserError: it is no Parquet, or a column is missing or doubled.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as content:
            names = content.schema_arrow.names
            chosen = [names[i] for i in delimited.positions(file, columns, names)]
            parts = content.iter_batches(BATCH, columns=chosen)
            yield from _arrow_records(
                ([part.column(name) for name in chosen] for part in parts), file, chosen, nested
            )
    except (pa.ArrowException, OSError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file}: not readable as Parquet ({what}); write it anew") from None


def hub_records(
    file: str, split: str, columns: list[str], nested: Collection[str] = ()
) -> Iterator[Record]:
    """The rows of a pointer file's split, by its name on the hub, likewise."""
    data, wanted = hub.rows(file, split, columns)
    names = list(data.features)
    chosen = [names[i] for i in delimited.positions(file, wanted, names)]
    of_hub = [theirs for ours, theirs in zip(columns, wanted, strict=True) if ours in nested]
    yield from _arrow_records(hub.batches(data, chosen), file, chosen, of_hub)


def _arrow_records(
    parts: Iterator[list[pa.Array]], file: str, names: list[str], nested: Collection[str]
) -> Iterator[Record]:
    first = 1
    for arrays in parts:
        pairs = zip(arrays, names, strict=True)
        texts = [_arrow_texts(array, file, name, name in nested) for array, name in pairs]
        yield from enumerate(zip(*texts, strict=True), first)
        first += len(arrays[0])


def _arrow_texts(array: pa.Array, file: str, name: str, nested: bool) -> list[str]:
    import pyarrow.types as kinds

    if kinds.is_dictionary(array.type):
        array = array.dictionary_decode()
    if kinds.is_nested(array.type) and nested:
        return [
            "" if value is None else json.dumps(value, default=str) for value in array.to_pylist()
        ]
    if kinds.is_nested(array.type):
        raise UserError(f"{file}: column {name!r} holds {array.type}, not texts; flatten it")
    if kinds.is_binary(array.type) or kinds.is_large_binary(array.type):
        raw = array.to_pylist()
        return ["" if v is None else v.decode("utf-8", "surrogateescape") for v in raw]
    if (
        kinds.is_boolean(array.type)
        or kinds.is_integer(array.type)
        or kinds.is_floating(array.type)
    ):
        return [as_text(value) for value in array.to_pylist()]
    return ["" if value is None else str(value) for value in array.to_pylist()]


def as_text(value: Any, nested: bool = False) -> Any:
    """A value as JSON writes it, texts as they are, nothing for what is missing (null, or NaN as
    pandas writes it); None where it is a list or an object, unless these may be."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return None if isinstance(value, list | dict) and not nested else json.dumps(value)
