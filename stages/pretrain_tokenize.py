"""Plain texts to a tokenizer of their own, and to blocks of tokens that a model can be trained on.

Run: `python -m stages pretrain_tokenize`, or `dvc repro workflow/pretrain/dvc.yaml`
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from stages.artifacts import column, replacing_folder, write_arrow, write_json
from stages.errors import UserError
from stages.params import Section
from stages.pins import versions

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

LIBRARIES = ("numpy", "pyarrow", "tokenizers")
FOLDER = Path("data/pretrain")
END = "<|endoftext|>"  # before and after each document


class PretrainTokenize(Section):
    """workflow/pretrain/params.yaml: pretrain_tokenize"""

    path: str = Field(min_length=1, description="a folder of .txt files, each a document")
    validation: float = Field(gt=0, lt=1, description="share of the documents")
    seed: int = Field(ge=0, description="of the draw")
    vocabulary: int = Field(ge=257, le=2**16, description="tokens: 256 bytes, the end, and merges")
    block: int = Field(ge=8, description="tokens that the model sees at once")


@dataclass(frozen=True)
class Documents:
    """Texts by split, and how many files gave none."""

    train: list[str]
    validation: list[str]
    empty: int
    duplicates: int


def run(params: PretrainTokenize) -> dict[str, object]:
    """Write data/pretrain/ and results/pretrain/tokens.json.

    Raises:
        UserError: there are too few documents, or some are no UTF-8.
    """
    found = read(params)
    tokenizer = train_tokenizer(found.train, params.vocabulary)
    about: dict[str, Any] = {"empty": found.empty, "duplicates": found.duplicates}
    about["vocabulary"] = tokenizer.get_vocab_size()
    with replacing_folder(FOLDER) as folder:
        tokenizer.save(str(folder / "tokenizer.json"))
        for split in ("train", "validation"):
            texts = getattr(found, split)
            table = blocks(tokenizer, texts, params.block)
            write_arrow(folder / f"{split}.arrow", table)
            size = sum(len(text.encode()) for text in texts)
            tokens = int(table["target_tokens"].to_numpy().sum())
            about[split] = {
                "documents": len(texts),
                "bytes": size,
                "tokens": tokens,
                "blocks": len(table),
                "bytes_per_token": round(size / tokens, 4),
            }
    about |= {"parameters": params.model_dump(mode="json"), "libraries": versions(LIBRARIES)}
    write_json("results/pretrain/tokens.json", about)
    return {f"{split}_tokens": about[split]["tokens"] for split in ("train", "validation")}


def read(params: PretrainTokenize) -> Documents:
    """The documents of a folder and those below it; line ends are made `\\n`.

    A document's split depends on its text and the others', on no name. One that occurs again is
    used once.
    """
    folder = Path(params.path)
    key = "workflow/pretrain/params.yaml: pretrain_tokenize.path"
    if not folder.is_dir():
        raise UserError(f"{key}: no such folder, got {params.path!r}; put .txt files there")
    texts, problems = [], []
    for file in sorted(folder.rglob("*.txt")):
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            problems.append(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8")
            continue
        texts.append(text.replace("\r\n", "\n").replace("\r", "\n").strip())
    if problems:
        raise UserError(*problems)
    filled = [text for text in texts if text]
    order = sorted({_draw(text, params.seed): text for text in filled}.items())
    if len(order) < 2:
        raise UserError(
            f"{key}: {len(order)} documents in {params.path}, one to train and one to validate are "
            "the least; add .txt files"
        )
    count = min(len(order) - 1, max(1, round(params.validation * len(order))))
    drawn = [text for _, text in order]
    return Documents(
        drawn[count:], drawn[:count], len(texts) - len(filled), len(filled) - len(order)
    )


def _draw(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{text}".encode()).hexdigest()


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    """Byte-pair encoding of bytes (Radford et al., "Language Models are Unsupervised Multitask
    Learners", 2019): no text has unknown tokens, and every text comes back as it was."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def blocks(tokenizer: Tokenizer, texts: list[str], size: int) -> pa.Table:
    """Texts as one stream, cut into blocks of at most `size` tokens.

    A block begins with the token that the one before ends with, so that each token but the first,
    which is an end, is predicted once. Columns: `input_ids`; `target`, bytes of the text that the
    block predicts; `target_tokens`, its tokens. Ends count among these and have no bytes.
    """
    import pyarrow as pa

    end = tokenizer.token_to_id(END)
    parts = [np.array([end], np.int32)]
    tokenizer.encode_special_tokens = True  # a text that spells the end's name does not end there
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        parts += [np.array(ids, np.int32), parts[0]]
    stream = np.concatenate(parts)
    widths = np.zeros(tokenizer.get_vocab_size(), np.int64)
    for token, number in tokenizer.get_vocab().items():
        widths[number] = 0 if number == end else len(token)  # a letter of its alphabet is a byte
    starts = np.arange(0, len(stream) - 1, size - 1)
    rows = [stream[start : start + size] for start in starts]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    ids = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows)))
    return pa.table(
        {
            "input_ids": ids,
            "target": column(np.array([widths[row[1:]].sum() for row in rows])),
            "target_tokens": column(np.array([len(row) - 1 for row in rows])),
        }
    )
