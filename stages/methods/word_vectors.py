"""Averaged word vectors and a linear head, both trained: the classifier before pre-trained networks
(Joulin et al., "Bag of Tricks for Efficient Text Classification", 2016, arXiv:1607.01759).

Vectors are trained by gensim on the training texts (Mikolov et al., "Efficient Estimation of Word
Representations in Vector Space", 2013, arXiv:1301.3781) or read from a file of Word2Vec, as text or
binary, or of GloVe. Words are the pieces of the base's tokenizer, so texts arrive as for any
method; of a file, a piece takes the vector of the word that it spells when it begins a word, and
the pieces that go on a word start at zero. Nothing else of the base is used.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from stages.adaptation import Adapted, Start
from stages.artifacts import sha256
from stages.errors import UserError
from stages.params import Section

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


LIBRARIES = ("gensim",)
PLAIN = False
BEGINS = ("Ġ", "▁")  # how byte-level and sentence-piece tokenizers mark a piece that begins a word


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")
    file: str | None = Field(min_length=1, description="null: vectors are trained on the texts")
    sha256: str | None = Field(description="of that file")
    size: int = Field(ge=1, description="of a vector; that of the file, where there is one")
    epochs: int = Field(ge=1, description="of gensim over the texts")
    window: int = Field(ge=1, description="words to each side that a vector is to foretell")

    @model_validator(mode="after")
    def _pinned(self) -> Params:
        if self.file is not None and self.sha256 is None:
            raise ValueError(
                "sha256: missing for the file, got None; write its SHA-256, which keeps results "
                "in step with its content"
            )
        return self


def refuses(task: str) -> str | None:
    known = ("classification", "multilabel", "regression")
    return None if task in known else "a mean over the words of a text says nothing of each"


def apply(model: PreTrainedModel, new: list[str], params: Params) -> Adapted:
    """
    Raises:
        UserError: the file of vectors is not the one that is pinned.
    """
    module: Any = _module(model, params.size)
    if params.file is not None:
        _check(params)
        begin = partial(_read, module, _pieces(Path(str(model.name_or_path))), params)
    else:
        begin = partial(_learn, module, params)
    return Adapted(module, start=begin)


def _module(model: PreTrainedModel, size: int) -> nn.Module:
    """Called as a transformers model is."""
    import torch
    from transformers.modeling_outputs import SequenceClassifierOutput

    config: Any = model.config

    class WordVectors(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = config
            self.words = torch.nn.Embedding(config.vocab_size, size)
            self.classifier = torch.nn.Linear(size, config.num_labels)

        def set_attn_implementation(self, name: str) -> None:
            """There is no attention."""

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **others: torch.Tensor
        ) -> Any:
            kept = attention_mask[..., None].to(self.words.weight.dtype)
            mean = (self.words(input_ids) * kept).sum(1) / kept.sum(1)
            return SequenceClassifierOutput(logits=self.classifier(mean))

    return WordVectors()


def _learn(module: Any, params: Params, start: Start) -> None:
    """Skip-grams by one thread, which repeats to the bit."""
    from gensim.models import Word2Vec

    rows = start.rows
    texts = [
        list(map(str, rows.tokens[begin:end].tolist()))
        for begin, end in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)
    ]
    found = Word2Vec(
        texts,
        vector_size=params.size,
        window=params.window,
        epochs=params.epochs,
        min_count=1,
        sg=1,
        seed=start.seed,
        workers=1,
        hashfxn=int,  # of Python's own, strings have another in each process
    ).wv
    vectors = np.zeros((module.words.num_embeddings, params.size), np.float32)
    vectors[np.array(found.index_to_key, dtype=np.int64)] = found.vectors
    _set(module, vectors)


def _read(module: Any, pieces: dict[str, int], params: Params, start: Start) -> None:
    """Of a file the vectors of the words that pieces spell."""
    file, size = Path(params.file or ""), params.size
    vectors = np.zeros((module.words.num_embeddings, size), np.float32)
    found = _of_binary(file, size) if _is_binary(file) else _of_text(file, size, pieces)
    for word, vector in found:
        if word in pieces:
            vectors[pieces[word]] = vector
    _set(module, vectors)


def _is_binary(file: Path) -> bool:
    """Is it Word2Vec's binary form: the line of counts, after which no line of numbers comes?"""
    with open(file, "rb") as content:
        counts, line = (content.readline().decode(errors="replace") for _ in range(2))
    return _declared(counts) is not None and _numbers(line) == 0


def _of_binary(file: Path, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """
    Raises:
        UserError: the vectors have another size, or the file ends too soon.
    """
    from gensim.models import KeyedVectors

    with open(file, "rb") as content:
        declared = _declared(content.readline().decode(errors="replace"))
    _require(file, 1, declared or 0, size)
    try:
        found = KeyedVectors.load_word2vec_format(str(file), binary=True, unicode_errors="replace")
    except (EOFError, ValueError) as error:
        raise UserError(
            "params.yaml: methods.word_vectors.file: not all of a file of Word2Vec in binary form "
            f"({error}), got {str(file)!r}; fetch it anew"
        ) from None
    return zip(found.index_to_key, found.vectors, strict=True)


def _of_text(file: Path, size: int, wanted: Container[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The wanted words of a file with a word and its numbers a line, with or without a line of
    counts. A word may hold spaces, as in glove.840B.

    Raises:
        UserError: the vectors have another size, or one line has too few numbers.
    """
    begun = False
    with open(file, encoding="utf-8", errors="replace", newline="\n") as lines:
        for number, line in enumerate(map(str.rstrip, lines), 1):
            if number == 1 and (declared := _declared(line)) is not None:
                _require(file, number, declared, size)
                continue
            word, *values = line.rsplit(" ", size)
            if not begun:
                _require(file, number, _numbers(line), size)
                begun = True
            elif (len(values) < size or word in wanted) and _numbers(line) < size:
                raise UserError(
                    f"params.yaml: methods.word_vectors.file: {file}, line {number} has "
                    f"{_numbers(line)} numbers, those before {size}, got {str(file)!r}; mend that "
                    "line, or fetch the file anew"
                )
            if word in wanted:
                yield word, np.array(values, dtype=np.float32)


def _declared(line: str) -> int | None:
    """The size in Word2Vec's first line, the count of words and the size; None: it is another."""
    parts = line.split()
    return int(parts[1]) if len(parts) == 2 and all(map(str.isdecimal, parts)) else None


def _numbers(line: str) -> int:
    """How many numbers a line ends in, after a word."""
    count = 0
    for part in reversed(line.rstrip().split(" ")[1:]):
        try:
            float(part)
        except ValueError:
            break
        count += 1
    return count


def _require(file: Path, line: int, found: int, size: int) -> None:
    if found == 0:
        raise UserError(
            f"params.yaml: methods.word_vectors.file: {file}, line {line} has no numbers, got "
            f"{str(file)!r}; write a file of Word2Vec or GloVe, unpacked"
        )
    if found != size:
        raise UserError(
            f"params.yaml: methods.word_vectors.size: in {file}, line {line}, it is {found}, got "
            f"{size}; write {found}"
        )


def _set(module: Any, vectors: np.ndarray) -> None:
    import torch

    with torch.no_grad():
        module.words.weight.copy_(torch.from_numpy(vectors))


def _check(params: Params) -> None:
    file = Path(params.file or "")
    if not file.is_file():
        raise UserError(
            f"params.yaml: methods.word_vectors.file: no such file, got {params.file!r}; write a "
            "path from the project's root"
        )
    found = sha256(file)
    if found != params.sha256:
        raise UserError(
            f"params.yaml: methods.word_vectors.sha256: {file} has another content, got "
            f"{params.sha256!r}; write {found!r}"
        )


def _pieces(base: Path) -> dict[str, int]:
    """Number of each piece that begins a word, by what it spells."""
    from tokenizers import Tokenizer

    file = base / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = Tokenizer.from_file(str(file)).get_vocab()
    marks = [mark for mark in BEGINS if any(piece.startswith(mark) for piece in vocabulary)]
    if marks:
        return {
            piece.removeprefix(marks[0]): number
            for piece, number in vocabulary.items()
            if piece.startswith(marks[0])
        }
    goes_on = content["model"].get("continuing_subword_prefix") or "##"
    return {piece: n for piece, n in vocabulary.items() if not piece.startswith(goes_on)}


def merge(module: nn.Module) -> nn.Module:
    return module
