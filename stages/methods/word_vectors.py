"""Averaged word vectors and a linear head, both trained: the classifier before pre-trained networks
(Joulin et al., "Bag of Tricks for Efficient Text Classification", 2016, arXiv:1607.01759).

Vectors are trained by gensim on the training texts (Mikolov et al., "Efficient Estimation of Word
Representations in Vector Space", 2013, arXiv:1301.3781) or read from a file of Word2Vec or GloVe in
text form. Words are the pieces of the base's tokenizer, so texts arrive as for any method; of a
file, a piece takes the vector of the word that it spells when it begins a word, and the pieces that
go on a word start at zero. Nothing else of the base is used.
"""

from __future__ import annotations

import json
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
    """Vectors of a text file: a word and its numbers a line, with or without a line of counts."""
    assert params.file is not None
    vectors = np.zeros((module.words.num_embeddings, params.size), np.float32)
    with open(params.file, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            word, *values = line.rstrip("\n").rstrip().split(" ")
            if number == 1 and len(values) == 1:
                continue  # Word2Vec's count of words and their size
            if len(values) != params.size:
                raise UserError(
                    f"params.yaml: methods.word_vectors.size: {params.file}, line {number} has "
                    f"{len(values)} numbers, got {params.size}; write {len(values)}"
                )
            if word in pieces:
                vectors[pieces[word]] = np.array(values, dtype=np.float32)
    _set(module, vectors)


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
