"""Texts that a causal model writes after prompts: greedy, or drawn with a seed.

A row's text depends on its prompt alone, whatever else is in its batch: prompts are filled up on
their left, and each row draws from a generator of its own, seeded by the prompt.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from stages.adaptation import positions
from stages.params import Section

if TYPE_CHECKING:
    import pyarrow as pa


class Decoding(Section):
    """params.yaml: evaluate.decoding"""

    max_new_tokens: int = Field(ge=1, description="of a text, at most")
    temperature: float = Field(ge=0, description="0: greedy, the likeliest token each time")
    top_p: float = Field(gt=0, le=1, description="share of the likeliest tokens that is drawn from")
    seed: int = Field(ge=0, description="of the draw")


def prompts(table: pa.Table) -> list[np.ndarray]:
    """The tokens of each row's prompt."""
    lists = table["input_ids"].combine_chunks()
    offsets, ids = lists.offsets.to_numpy(), lists.values.to_numpy(zero_copy_only=False)
    counts = table["prompt"].to_pylist()
    return [ids[start : start + n] for start, n in zip(offsets[:-1], counts, strict=True)]


def write(
    model: Any,
    table: pa.Table,
    decoding: Decoding,
    batch_size: int,
    device: str,
) -> list[list[int]]:
    """The tokens that a model writes after each row's prompt, without the one that ends them.

    Args:
        model: in evaluation mode.
        table: of `stages.common.prompts`.
    """
    given = prompts(table)
    found: list[list[int]] = [[]] * len(given)
    if not given:
        return found
    ends = {int(table["end"][0].as_py()), *_ends(model)}
    order = np.argsort([len(one) for one in given], kind="stable")
    model.to(device)
    for rows in np.array_split(order, -(-len(order) // batch_size)):
        for row, text in zip(
            rows, _batch(model, [given[i] for i in rows], decoding, ends, device), strict=True
        ):
            found[row] = text
    return found


def _ends(model: Any) -> list[int]:
    """Other tokens that end a text, by the base's own word."""
    value = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def _batch(
    model: Any, given: Sequence[np.ndarray], decoding: Decoding, ends: set[int], device: str
) -> list[list[int]]:
    import torch

    width = max(len(one) for one in given)
    ids = np.zeros((len(given), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, one in enumerate(given):
        ids[row, width - len(one) :] = one
        mask[row, width - len(one) :] = 1
    draws = [np.random.default_rng([decoding.seed, zlib.crc32(one.tobytes())]) for one in given]
    places: np.ndarray = np.maximum(mask.cumsum(axis=1) - 1, 0)
    limit = positions(model) or 2**31
    named = inspect.signature(model.forward).parameters
    found: list[list[int]] = [[] for _ in given]
    going = np.array([len(one) <= limit for one in given])
    step, kept = ids, None
    for _ in range(decoding.max_new_tokens):
        if not going.any():
            break
        inputs = {"input_ids": step, "attention_mask": mask}
        if "position_ids" in named:
            inputs["position_ids"] = places
        tensors = {name: torch.from_numpy(value).to(device) for name, value in inputs.items()}
        last = {"logits_to_keep": 1} if "logits_to_keep" in named else {}
        with torch.inference_mode():
            output = model(**tensors, **last, past_key_values=kept, use_cache=True)
        kept = output.past_key_values
        logits = output.logits[:, -1].float().cpu().numpy()
        chosen = np.array(
            [_choose(one, decoding, draw) for one, draw in zip(logits, draws, strict=True)]
        )
        for row in np.flatnonzero(going).tolist():
            if int(chosen[row]) in ends:
                going[row] = False
            else:
                found[row].append(int(chosen[row]))
        places = places[:, -1:] + 1
        going &= places[:, 0] < limit
        places = np.minimum(places, limit - 1)
        step = np.where(going, chosen, 0)[:, None]
        mask = np.concatenate([mask, np.ones_like(step)], axis=1)
    return found


def _choose(logits: np.ndarray, decoding: Decoding, draw: np.random.Generator) -> int:
    """The likeliest token; or one of the fewest likeliest that hold `top_p` of the probability
    (Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020)."""
    if decoding.temperature == 0:
        return int(logits.argmax())
    scaled = (logits.astype(np.float64) - logits.max()) / decoding.temperature
    shares = np.exp(scaled)
    order = np.argsort(-shares, kind="stable")
    sums = np.cumsum(shares[order] / shares.sum())
    count = int(np.searchsorted(sums, decoding.top_p)) + 1
    sums = sums[:count]
    return int(order[min(np.searchsorted(sums, draw.random() * sums[-1], "right"), count - 1)])


def texts(written: Sequence[list[int]], tokenizer: Any) -> list[str]:
    """The texts of tokens, without special ones and white space at the ends.

    Args:
        tokenizer: of the library tokenizers.
    """
    return [text.strip() for text in tokenizer.decode_batch([*written], skip_special_tokens=True)]
