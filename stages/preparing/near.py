"""Near duplicates: rows whose texts share most of their character 5-grams, by MinHash.

The measure is the Jaccard similarity of two texts' sets of 5-grams, letters' case aside: one rule
for short and long texts, and for scripts without spaces. Pairs are proposed by MinHash (Broder,
"On the resemblance and containment of documents", 1997), of which 8 bits are kept (Li and König,
"b-Bit Minwise Hashing", 2010), in bands; each proposal is then decided by the 5-grams themselves.
So no pair below the threshold counts, and one at the threshold is missed in 1 of 100 cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

GRAM = 5  # characters
HASHES = 128  # bytes of a signature, at most
RECALL = 0.99  # of pairs at the threshold
WIDEST = 8  # hashes in a band, which fit 64 bits
CHUNK = 1 << 20  # characters hashed at a time
SLACK = 0.15  # below the threshold, by the signature's estimate, before a pair is not looked at
LEADERS = 8  # rows of a band's bucket that the others are compared with


def bands(threshold: float) -> tuple[int, int]:
    """How many bands, and of how many hashes each: the widest that keep the recall, within HASHES.

    A pair of similarity s agrees in a band of r hashes with probability s^r.
    """
    for width in range(WIDEST, 0, -1):
        count = math.ceil(math.log(1 - RECALL) / math.log(1 - threshold**width))
        if count * width <= HASHES:
            return count, width
    raise AssertionError(threshold)  # one hash a band does from 0.04 on


def signatures(texts: Sequence[str], threshold: float) -> np.ndarray:
    """MinHash signatures, uint8 [n, bands * width]: a byte of the least of each hash function."""
    count, width = bands(threshold)
    factors = _mixed(np.arange(1, count * width + 1, dtype=np.uint64)) | np.uint64(1)
    result = np.empty((len(texts), count * width), dtype=np.uint8)
    for first, part in _chunks(texts):
        hashed, starts = _hashed(part)
        for k, factor in enumerate(factors):
            least = np.minimum.reduceat(hashed * factor, starts)
            result[first : first + len(part), k] = (least >> np.uint64(24)).astype(np.uint8)
    return result


def clusters(texts: Sequence[str], signature: np.ndarray, threshold: float) -> np.ndarray:
    """For each text [n], the index of the first one of its cluster, int64.

    Near duplicates of near duplicates are in one cluster.
    """
    count, width = bands(threshold)
    proposed = np.zeros(0, dtype=np.int64)  # i * n + j
    for band in range(count):
        part = signature[:, band * width : (band + 1) * width]
        proposed = np.union1d(proposed, _proposals(signature, part, threshold - SLACK))
    first = list(range(len(texts)))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    last, known = -1, set[str]()
    for code in _numbers(proposed):  # in order, so those of one i follow each other
        i, j = divmod(code, len(texts))
        a, b = sorted((root(i), root(j)))
        if a == b:
            continue
        if i != last:
            last, known = i, grams(texts[i])
        if similarity(known, grams(texts[j])) >= threshold:
            first[b] = a
    return np.array([root(i) for i in range(len(texts))], dtype=np.int64)


def _numbers(values: np.ndarray) -> Iterator[int]:
    """As Python has them, a part at a time: they take five times the memory."""
    for start in range(0, len(values), CHUNK):
        yield from values[start : start + CHUNK].tolist()


def grams(text: str) -> set[str]:
    """The 5-grams of a text; one that is shorter is a gram itself."""
    text = text.casefold()
    return {text[i : i + GRAM] for i in range(max(1, len(text) - GRAM + 1))}


def similarity(one: set[str], other: set[str]) -> float:
    """Jaccard similarity of two sets that are not empty."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    first, part, size = 0, list[str](), 0
    for i, text in enumerate(texts):
        part.append(text.casefold())
        size += len(part[-1]) + GRAM
        if size > CHUNK:
            yield first, part
            first, part, size = i + 1, [], 0
    if part:
        yield first, part


def _hashed(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all 5-grams of all texts, uint64 [m], and where each text's begin, int64 [n]."""
    gap = "\0" * GRAM
    joined = gap.join(texts) + gap
    letters = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.array([len(text) for text in texts])
    begins = np.concatenate([[0], np.cumsum(lengths + GRAM)[:-1]])
    counts = np.maximum(lengths - GRAM + 1, 1)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    positions = np.repeat(begins - starts, counts) + np.arange(counts.sum())
    rolling = np.zeros(len(letters) - GRAM + 1, dtype=np.uint64)
    for k in range(GRAM):
        rolling *= np.uint64(0x100000001B3)
        rolling += letters[k : len(letters) - GRAM + 1 + k]
    return _mixed(rolling)[positions], starts


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014): every bit in shapes every bit out."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _proposals(signature: np.ndarray, band: np.ndarray, least: float) -> np.ndarray:
    """Pairs i < j of the n rows, as i * n + j, int64 [p], that agree in a band and, by the whole
    signature's estimate, share at least `least` of their grams.

    In a bucket of rows that agree, each is compared with the first; those that are unlike it, with
    the first of themselves, and so on, LEADERS times: a bucket's cost is linear in its rows.
    """
    packed = np.zeros((len(signature), WIDEST), dtype=np.uint8)
    packed[:, : band.shape[1]] = band
    keys = packed.view("<u8").ravel()
    rows = np.argsort(keys, kind="stable")
    found: list[np.ndarray] = []
    for _ in range(LEADERS):
        if not len(rows):
            break
        begins = np.flatnonzero(np.concatenate([[True], np.diff(keys[rows]) != 0]))
        leaders = np.repeat(rows[begins], np.diff(np.append(begins, len(rows))))
        followers = np.ones(len(rows), dtype=bool)
        followers[begins] = False
        rows, leaders = rows[followers], leaders[followers]
        near = _estimates(signature, leaders, rows) >= least
        found.append(leaders[near] * len(signature) + rows[near])
        rows = rows[~near]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _estimates(signature: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Similarity [p] of rows by the share of equal bytes, of which chance makes 1 in 256."""
    shares = [
        (signature[one[i : i + CHUNK // 16]] == signature[other[i : i + CHUNK // 16]]).mean(axis=1)
        for i in range(0, len(one), CHUNK // 16)
    ]
    return (np.concatenate([[], *shares]) - 1 / 256) / (1 - 1 / 256)
