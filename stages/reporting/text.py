"""How numbers, names and users' texts are written, on the page and in the terminal."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

MISSING = "–"
_WORDS = {
    "f1": "F1",
    "mcc": "MCC",
    "roc": "ROC",
    "pr": "PR",
    "auc": "AUC",
    "ece": "expected calibration error",
}
_NAMES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
}
_JOINERS = "\u200d\ufe0e\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
_UNPRINTABLE = {
    code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (9, 10)
}


def count(value: float | None) -> str:
    """`12,345`"""
    return MISSING if value is None else f"{value:,.0f}"


def number(value: Any) -> str:
    """A count with separators, a fraction with three decimals, other words as they are."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value and abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.1f}"


def interval(value: Mapping[str, float | None]) -> str:
    """`0.842 (0.808 to 0.873)`; the value alone where an end is missing."""
    ends = number(value.get("low")), number(value.get("high"))
    point = number(value.get("value"))
    return point if MISSING in ends else f"{point} ({ends[0]} to {ends[1]})"


def signed(value: float) -> str:
    """With its sign: `+0.065`. One that is not zero does not read as zero: `+0.0002`, but for what
    rounding left (1e-12)."""
    digits = ".2g" if 1e-12 < abs(value) < 0.0005 else ".3f"
    return f"{value:+{digits}}".replace("-", "−")


def p_value(value: float) -> str:
    """`p = 0.031`, `p < 0.001`"""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def percent(share: float | None, digits: int = 1) -> str:
    """`12.5%`"""
    return MISSING if share is None else f"{100 * share:.{digits}f}%"


def share(part: float | None, whole: float | None, digits: int = 1) -> str:
    """`part` of `whole` in percent; a dash where there is no whole."""
    return percent(part / whole, digits) if part is not None and whole else MISSING


def name(key: str) -> str:
    """`macro_f1` as people write it: `macro F1`"""
    return _NAMES.get(key) or " ".join(
        _WORDS.get(word, word) for word in key.replace("_", " ").split()
    )


def heading(key: str) -> str:
    """`name` at the start of a line: `Macro F1`, but `chrF`."""
    found = name(key)
    return found if key in _NAMES else found[:1].upper() + found[1:]


def printable(value: str) -> str:
    """Control characters, which HTML forbids, as the replacement character."""
    return value.translate(_UNPRINTABLE)


def clip(value: str, length: int) -> str:
    """The first `length` characters and an ellipsis; never between the parts of one glyph."""
    if len(value) <= length:
        return value
    end = length
    while end > length - 20 and (value[end] in _JOINERS or value[end - 1] == "\u200d"):
        end -= 1
    while end > length - 20 and unicodedata.combining(value[end]):
        end -= 1
    return value[:end].rstrip() + "…"


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested parameters as (dotted key, value as YAML would have it)."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, _yaml(value)


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{}"
    return str(value) if value != "" else '""'
