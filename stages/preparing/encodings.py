"""How the bytes of a text file become characters: declared, marked, or detected and said."""

from __future__ import annotations

import codecs
from pathlib import Path

from stages.errors import UserError, did_you_mean

COMMON = ("utf-8", "cp1252", "latin-1", "utf-16", "cp1250", "cp1251", "shift_jis", "gb18030")
HEAD = 1 << 16  # bytes
SAMPLE = 1 << 18  # bytes of lines that are not UTF-8, for detection
CHUNK = 1 << 20  # bytes
DAMAGED = 0.05  # share of lines that may be in no encoding at all

_MARKS = (  # UTF-32's little-endian mark begins with UTF-16's, so it goes first
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What detection may find, most usual first. charset_normalizer knows many more, and takes short
# samples of these for them (Latin-1 German for iso8859_10, KOI8 for Shift-JIS).
_CANDIDATES = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r"),
    *("cp932", "euc_jp", "gb18030", "big5", "euc_kr"),
]


def check_codec(name: str) -> str:
    """`name`, if it is `auto` or a codec of text that Python has.

    Raises:
        ValueError: otherwise, with what to write.
    """
    try:
        if name != "auto":
            "a".encode(name)
    except (LookupError, ValueError):
        raise ValueError(f"not a known encoding; {did_you_mean(name, ('auto', *COMMON))}") from None
    return name


def codec(file: str, declared: str, notes: list[str]) -> str:
    """The codec to read `file` with; what was guessed is added to `notes`.

    Raises:
        UserError: nothing fits, or the file's byte order mark contradicts the declaration.
    """
    with open(file, "rb") as handle:
        head = handle.read(HEAD)
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if declared != "auto":
        # Of the names as Python has them, the first five letters tell UTF-8, UTF-16 and UTF-32.
        if marked and codecs.lookup(declared).name[:5] != codecs.lookup(marked).name[:5]:
            raise UserError(
                f"{file}: begins with the byte order mark of {marked}, but prepare.encoding is "
                f"{declared!r}; write auto"
            )
        return declared
    if marked:
        return marked
    zeros = {"utf-16-be": head[0::2].count(0), "utf-16-le": head[1::2].count(0)}
    name = max(zeros, key=zeros.__getitem__)
    # ASCII characters in two bytes each have their zeros on one side; zeros on both are a mishap.
    if sum(zeros.values()) > len(head) // 10 and zeros[name] > 4 * min(zeros.values()):
        notes.append(f"{file}: no byte order mark; read as {name}, for its zero bytes")
        return name
    return "utf-8" if _is_utf8(Path(file)) else _detected(file, notes)


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open(path, "rb") as handle:
            while chunk := handle.read(CHUNK):
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _detected(file: str, notes: list[str]) -> str:
    """The codec of a file that is not (all) UTF-8."""
    from charset_normalizer import from_bytes

    total, good, bad, sample = 0, 0, 0, bytearray()
    with open(file, "rb") as handle:
        for line in iter(lambda: handle.readline(SAMPLE), b""):
            total += 1
            if line.isascii():
                continue
            try:
                line.decode("utf-8")
                good += 1
            except UnicodeDecodeError:
                bad += 1
                sample += line[: SAMPLE - len(sample)]
    ranked = sorted(
        from_bytes(bytes(sample), cp_isolation=_CANDIDATES),
        key=lambda match: (match.chaos, -match.coherence, _CANDIDATES.index(match.encoding)),
    )
    if good > bad or (not ranked and bad <= DAMAGED * total):
        notes.append(f"{file}: UTF-8, save for {bad} of its lines; their rows are rejected")
        return "utf-8"
    if not ranked:
        raise UserError(
            f"{file}: not UTF-8, and its encoding cannot be told; write prepare.encoding: "
            f"{', '.join(COMMON)} ..."
        )
    name = str(ranked[0].encoding)
    other = f" ({ranked[1].encoding} fits too)" if len(ranked) > 1 else ""
    notes.append(
        f"{file}: not UTF-8; detected {name}{other}. Where letters come out wrong, "
        "declare prepare.encoding"
    )
    return name
