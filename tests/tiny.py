"""A Hugging Face base that is tiny but real, made in milliseconds and without torch.

import tiny
tiny.make_base(tmp_path / "base")
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    *("the", "a", "it", "is", "was", "not", "very", "and", "but", "this", "i", "to", "of", "for"),
    *("good", "great", "love", "fine", "nice", "best", "happy", "fast", "works", "excellent"),
    *("bad", "awful", "hate", "poor", "ugly", "worst", "sad", "slow", "broken", "terrible"),
    *("film", "phone", "food", "place", "sound", "screen", "price", "plot", "service", "battery"),
    *("##s", "##ed", "##ly", "##ing", "##er", ".", ",", "!", "?", "'"),
)
HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 16, 2, 2, 32, 64
METHODS = {"freeze": {"layers": 1}}  # what is too much for it in the shipped parameters


def make_base(path: str | Path, seed: int = 0) -> Path:
    """Write a BERT of 2 layers and about 60 word pieces, weights drawn by `seed`, to a folder."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {piece: number for number, piece in enumerate((*SPECIAL, *WORDS))}
    _write_config(folder, len(vocabulary))
    _write_tokenizer(folder, vocabulary)
    write_weights(folder / "model.safetensors", weights(len(vocabulary), seed))
    return folder


def weights(vocabulary: int = len(SPECIAL) + len(WORDS), seed: int = 0) -> dict[str, np.ndarray]:
    """The tensors of a transformers BertModel, float32."""
    draw = np.random.default_rng(seed)
    tensors = {}

    def linear(name: str, out: int, size: int) -> None:
        tensors[f"{name}.weight"] = draw.normal(0, 0.1, (out, size)).astype(np.float32)
        tensors[f"{name}.bias"] = np.zeros(out, np.float32)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = np.ones(HIDDEN, np.float32)
        tensors[f"{name}.bias"] = np.zeros(HIDDEN, np.float32)

    for name, rows in (("word", vocabulary), ("position", POSITIONS), ("token_type", 2)):
        table = draw.normal(0, 0.1, (rows, HIDDEN)).astype(np.float32)
        tensors[f"embeddings.{name}_embeddings.weight"] = table
    norm("embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{layer}.attention.{part}", HIDDEN, HIDDEN)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", INNER, HIDDEN)
        linear(f"{layer}.output.dense", HIDDEN, INNER)
        norm(f"{layer}.output.LayerNorm")
    linear("pooler.dense", HIDDEN, HIDDEN)
    return tensors


def write_weights(file: Path, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    save_file(tensors, file, metadata={"format": "pt"})


END = "<|endoftext|>"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_causal(path: str | Path, seed: int = 0, template: str | None = None) -> Path:
    """Write a GPT-2 of 2 layers on bytes, which has no padding token, weights drawn by `seed`.

    Args:
        template: a chat template; None: it has none.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    marks = [END] if template is None else [END, "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate([*letters, *marks])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(marks)
    tokenizer.save(str(folder / "tokenizer.json"))
    end = END if template is None else "<|im_end|>"
    of_tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(of_tokenizer | ({} if template is None else {"chat_template": template}))
    )
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": 2 * HIDDEN,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_positions": 4 * POSITIONS,
        "vocab_size": len(vocabulary),
        "eos_token_id": vocabulary[end],
        "bos_token_id": vocabulary[end],
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_weights(folder / "model.safetensors", _causal_weights(len(vocabulary), seed))
    return folder


def _causal_weights(vocabulary: int, seed: int) -> dict[str, np.ndarray]:
    """The tensors of a transformers GPT2LMHeadModel, float32; its head is that of the input."""
    draw, width = np.random.default_rng(seed), 2 * HIDDEN
    found = {
        "transformer.wte.weight": draw.normal(0, 0.1, (vocabulary, width)),
        "transformer.wpe.weight": draw.normal(0, 0.1, (4 * POSITIONS, width)),
    }
    norms = [f"h.{i}.ln_{j}" for i in range(LAYERS) for j in (1, 2)]
    for name in (*norms, "ln_f"):
        found[f"transformer.{name}.weight"] = np.ones(width)
        found[f"transformer.{name}.bias"] = np.zeros(width)
    sizes = {"attn.c_attn": (1, 3), "attn.c_proj": (1, 1), "mlp.c_fc": (1, 4), "mlp.c_proj": (4, 1)}
    for i in range(LAYERS):
        for name, (inner, outer) in sizes.items():
            shape = (inner * width, outer * width)
            found[f"transformer.h.{i}.{name}.weight"] = draw.normal(0, 0.1, shape)
            found[f"transformer.h.{i}.{name}.bias"] = np.zeros(outer * width)
    return {name: values.astype(np.float32) for name, values in found.items()}


def _write_config(folder: Path, vocabulary: int) -> None:
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
        "vocab_size": vocabulary,
        "type_vocab_size": 2,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def _write_tokenizer(folder: Path, vocabulary: dict[str, int]) -> None:
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL}
    config = {
        "tokenizer_class": "BertTokenizerFast",
        "do_lower_case": True,
        "model_max_length": POSITIONS,
        **names,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=2))
