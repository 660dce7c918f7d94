"""Near duplicates: found by MinHash, decided by the texts themselves."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.preparing import near
from tests.preparing import reasons, run, splits, write

WORDS = [f"{a}{b}{c}" for a in "bdfgkl" for b in "aeiou" for c in ("m", "nt", "rst", "sh")]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sentence(draw: random.Random, words: int = 30) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words))


def clusters(texts: list[str], threshold: float) -> list[int]:
    return near.clusters(texts, near.signatures(texts, threshold), threshold).tolist()


def test_the_first_of_near_copies_in_a_split_stays() -> None:
    draw = random.Random(0)
    texts = [sentence(draw) for _ in range(60)]
    texts += [texts[5] + "!", texts[5].upper() + " now", texts[50] + "."]
    columns = {"text": texts, "label": [("a", "b")[i % 2] for i in range(63)]}
    columns["split"] = ["train"] * 40 + ["validation"] * 10 + ["test"] * 12 + ["train"]
    write(columns)
    result = run(split="split", near_duplicates=0.8)
    assert reasons() == {63: "near duplicate of line 62"}
    assert result["rejected"] == {"near duplicate": 1}
    # 5 in train and 60 in test; 50 in test and 62 in train.
    assert result["near_duplicate_leaks"] == {
        "clusters": 2,
        "rows": {"train": 2, "validation": 0, "test": 2},
    }
    off = run(split="split")
    assert off["rows"]["rejected"] == 0
    assert off["near_duplicate_leaks"] is None


def test_drawn_splits_count_the_clusters_that_straddle_them() -> None:
    draw = random.Random(1)
    texts = [sentence(draw) for _ in range(100)]
    write({"text": [*texts, *(f"{t}." for t in texts)], "label": ["a", "b"] * 100})
    result = run(near_duplicates=0.8)
    kept = splits()
    torn = [t for t in texts if t in kept and f"{t}." in kept]
    assert torn
    assert all(kept[t] != kept[f"{t}."] for t in torn)
    assert result["near_duplicate_leaks"]["clusters"] == len(torn)
    assert sum(result["near_duplicate_leaks"]["rows"].values()) == 2 * len(torn)
    assert result["rejected"]["near duplicate"] == 100 - len(torn)
    before = Path("results/data.json").read_bytes()
    run(near_duplicates=0.8)
    assert Path("results/data.json").read_bytes() == before


def test_what_is_rejected_moves_no_other_row() -> None:
    draw = random.Random(4)
    texts = [sentence(draw) for _ in range(100)]
    write({"text": [*texts, *(f"{t}." for t in texts)], "label": ["a", "b"] * 100})
    run()
    before = splits()
    run(near_duplicates=0.6)
    assert 0 < len(splits()) < len(before)
    assert splits().items() <= before.items()


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_pairs_at_the_threshold_are_found_and_none_below(threshold: float) -> None:
    draw = random.Random(7)
    texts = []
    for _ in range(400):
        words = sentence(draw, 40).split()
        texts.append(" ".join(words))
        for i in draw.sample(range(40), k=draw.randint(0, 12)):
            words[i] = draw.choice(WORDS)
        texts.append(" ".join(words))
    found = clusters(texts, threshold)
    similar = np.array(
        [
            near.similarity(near.grams(a), near.grams(b))
            for a, b in zip(texts[::2], texts[1::2], strict=True)
        ]
    )
    paired = np.array([found[i] == found[i + 1] for i in range(0, 800, 2)])
    assert 20 < (similar >= threshold).sum() < 400
    assert not paired[similar < threshold].any()
    assert paired[similar >= threshold].mean() >= near.RECALL


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(), max_size=12), st.sampled_from([0.5, 0.8, 0.99]))
def test_any_texts(texts: list[str], threshold: float) -> None:
    again = [*texts, *texts]
    found = clusters(again, threshold)
    assert found[len(texts) :] == found[: len(texts)]
    assert all(found[first] == first <= i for i, first in enumerate(found))


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        ("abcdef", "abcdef", 1.0),
        ("ABCDEF", "abcdef", 1.0),
        ("abcdef", "abcdeg", 1 / 3),
        ("ok", "ok", 1.0),
        ("ok", "no", 0.0),
        ("", "a", 0.0),
        ("很好的产品很好", "很好的产品很坏", 0.5),
    ],
)
def test_similarity_is_that_of_the_sets_of_five_characters(
    one: str, other: str, similarity: float
) -> None:
    assert near.similarity(near.grams(one), near.grams(other)) == pytest.approx(similarity)


def test_a_crowd_of_near_copies_is_one_cluster() -> None:
    texts = [f"{'the very same words of a form letter ' * 3}{i}" for i in range(3000)]
    assert set(clusters(texts, 0.8)) == {0}


def test_signatures_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    texts = [sentence(draw, draw.randint(1, 60)) for _ in range(50)]
    whole = near.signatures(texts, 0.8)
    monkeypatch.setattr(near, "CHUNK", 64)
    assert (near.signatures(texts, 0.8) == whole).all()
