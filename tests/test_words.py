"""Looked up word by word, texts have the very ids that the tokenizer gives them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from stages import words
from stages.words import DisprovedError, Words, direct, rows_of, rule
from tests import tiny

TEXT = [
    "it's the ﬁne film, not good at 20 %",
    "Ünïcode e\u0301 中文 日本 한 ΑΣ Σ",
    "don't we'll I'd",
]
SPECIAL = ["<s>", "</s>", "<unk>", "<mask>"]
# What parts words, joins them, vanishes, composes or looks like a special token.
ODD = [
    *("", " ", "  ", "\t", "\n", "\r", "\v", "\f", "\x00", "\x07", "\x1c", "\x85", "\xa0", "\xad"),
    *("\u0300", "\u0338", "\u1680", "\u200b", "\u200d", "\u2028", "\u3000", "\ufeff", "\ufffd"),
    *("¨", "ﬁ", "İ", "ß", "Σ", "ΑΣ", "中", "한", "\u1112\u1161\u11ab", "क्", "😀", "\ufdfa", "▁", "Ġ"),
    *("##s", "[SEP]", "[MASK]", " [CLS] ", "[", "]", "<mask>", "</s>", " <s>", "<", "'s", "'", "'ll"),
    *("the", "film", "good", "12", "3", ".", ",", "-", "_", "a" * 101, "x" * 40),
]  # fmt: skip
texts = st.lists(st.sampled_from(ODD) | st.text(max_size=4), max_size=14).map("".join)


def trained(pre: Any, normalizer: Any = None, **kinds: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.normalizer = pre, normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", **kinds)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return tokenizer


@cache
def tokenizer(name: str, folder: Path) -> Tokenizer:
    if name == "bert":
        return Tokenizer.from_file(str(tiny.make_base(folder) / "tokenizer.json"))
    if name == "gpt2":
        found = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
        found.post_processor = processors.ByteLevel(trim_offsets=False)
        return found
    if name == "roberta":
        return trained(pre_tokenizers.ByteLevel(add_prefix_space=True), lstrip=True)
    if name == "composing":
        steps = [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
        rules = [normalizers.NFKC(), normalizers.StripAccents(), normalizers.NFC()]
        return trained(pre_tokenizers.Sequence(steps), normalizers.Sequence(rules), rstrip=True)
    raise KeyError(name)


KINDS = {"bert": "between", "composing": "between", "gpt2": "before", "roberta": "before"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("base")


def same(tokenizer: Tokenizer, rows: list[list[str]], memo: Words | None = None) -> None:
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    memo = memo or Words(tokenizer, rule(tokenizer) or "between", len(columns))
    (tokens, lengths), (own, sizes) = memo.ids(columns), direct(tokenizer, rows_of(columns))
    assert lengths.tolist() == sizes.tolist()
    assert tokens.tolist() == own.tolist()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [1, 2])
def test_ids_are_the_tokenizers_own(folder: Path, name: str, count: int) -> None:
    chosen = tokenizer(name, folder)
    assert rule(chosen) == KINDS[name]
    memo = Words(chosen, rule(chosen) or "between", count)
    row = st.lists(texts, min_size=count, max_size=count)

    @settings(max_examples=25, deadline=None, database=None, derandomize=True)
    @given(st.lists(row, min_size=20, max_size=60))
    def holds(rows: list[list[str]]) -> None:
        same(chosen, rows, memo)

    holds()


def test_the_memo_begins_anew_when_it_is_full(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tokenizer("bert", folder)
    memo = Words(chosen, "between", 1)
    monkeypatch.setattr(words, "MOST", 3)
    for text in ("the film was good", "bad phone", "the bad film"):
        same(chosen, [[text], [text + " !"]], memo)
    assert "good" not in memo._numbers


def edited(tokenizer: Tokenizer, **parts: Any) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    for name, part in parts.items():
        setattr(copy, name, part)
    return copy


def test_what_is_not_proven_steps_aside(folder: Path) -> None:
    bert, gpt2 = tokenizer("bert", folder), tokenizer("gpt2", folder)
    of_words = edited(bert)
    of_words.add_tokens(["good film"])
    stripping = edited(gpt2)
    stripping.add_special_tokens([AddedToken("<x>", rstrip=True)])
    chinese = edited(bert)  # the normalizer puts spaces around it
    chinese.add_tokens([AddedToken("a中", normalized=True)])
    assert rule(bert) and rule(gpt2)
    refused = [
        of_words,
        stripping,
        chinese,
        edited(bert, pre_tokenizer=pre_tokenizers.Metaspace()),
        edited(bert, pre_tokenizer=pre_tokenizers.Punctuation()),
        edited(bert, normalizer=normalizers.Replace("a b", "c")),
        edited(bert, model=models.BPE(dropout=0.1)),
        edited(gpt2, pre_tokenizer=pre_tokenizers.ByteLevel(use_regex=False)),
    ]
    assert [rule(tokenizer) for tokenizer in refused] == [None] * len(refused)


def test_a_wrong_proof_is_found_by_the_data(folder: Path) -> None:
    """Words that depend on one another, had the rule let them pass."""
    chosen = edited(tokenizer("bert", folder))
    chosen.add_tokens(["good film"])
    with pytest.raises(DisprovedError):
        Words(chosen, "between", 1).ids([pa.array(["a good film"] * 40)])


def test_rows_are_replaced_in_place() -> None:
    tokens, lengths = np.arange(6, dtype=np.int32), np.array([2, 0, 3, 1])
    new = np.array([9, 8, 7], np.int32)
    found = words.replaced(tokens, lengths, np.array([1, 2]), new, np.array([2, 1]))
    assert [part.tolist() for part in found] == [[0, 1, 9, 8, 7, 5], [2, 2, 1, 1]]
