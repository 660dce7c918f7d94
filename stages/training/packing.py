"""Rows laid end to end, [1, tokens], so that no layer computes padding.

Everything but attention treats tokens one by one and never notices. Attention is computed for
a few groups of rows of like length, each as one product of matrices; inside a group short rows
are filled up and masked. The rest of the model is transformers' own, through its attention
interface, so this works for architectures whose positions can be given and whose head reads a
row's first token; others are refused, and trained on padded parts.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.models.bert.modeling_bert import eager_attention_forward

from stages.training.batching import INPUTS
from stages.training.dropout import dropout as drop

NAME = "packed"
GROUPS = 3
# Model type to the attribute that holds its layers.
ENCODERS = {"bert": "encoder", "distilbert": "transformer", "roberta": "encoder"}


class Layout:
    """Where the rows of a pack are, and how attention groups them."""

    def __init__(self, lengths: np.ndarray) -> None:
        """
        Args:
            lengths: tokens of each row [n], rising.
        """
        ends = np.cumsum(lengths)
        starts = ends - lengths
        self.first = torch.from_numpy(starts)
        self.groups = []
        count = max(1, min(GROUPS, len(lengths) // 4))
        for rows in np.array_split(np.arange(len(lengths)), count):
            begin, end = int(starts[rows[0]]), int(ends[rows[-1]])
            self.groups.append(Group(begin, end, lengths[rows]))


class Group:
    """Rows of like length: n rows of up to `width` tokens, from `begin` to `end` in the pack."""

    def __init__(self, begin: int, end: int, lengths: np.ndarray) -> None:
        self.begin, self.end = begin, end
        self.rows, self.width = len(lengths), int(lengths.max())
        columns = np.arange(self.width)[None, :]
        mask = columns < lengths[:, None]
        self.even = bool(mask.all())
        starts = np.cumsum(lengths) - lengths
        filled = starts[:, None] + np.minimum(columns, lengths[:, None] - 1)
        self.tokens = torch.from_numpy(filled.ravel())  # of the group, one a cell
        self.cells = torch.from_numpy(np.flatnonzero(mask))  # one a token
        # A masked score underflows to a weight of exactly 0, in bfloat16 too.
        self.bias = torch.from_numpy(np.where(mask, 0.0, -1e30).astype(np.float32))[:, None, None]

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """[1, heads, tokens of the pack, d] to [rows, heads, width, d]."""
        heads, size = x.shape[1], x.shape[3]
        flat = x[0].transpose(0, 1)[self.begin : self.end].reshape(-1, heads * size)
        if not self.even:
            flat = flat.index_select(0, self.tokens)
        return flat.view(self.rows, self.width, heads, size).transpose(1, 2)

    def give(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, heads, width, d] to [tokens of the group, heads * d]."""
        flat = x.transpose(1, 2).reshape(self.rows * self.width, -1)
        return flat if self.even else flat.index_select(0, self.cells)


_layout: Layout | None = None  # of the pack that is being computed; attention is told no more


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """transformers' attention interface; padded rows, where no pack is computed."""
    if _layout is None:
        return eager_attention_forward(
            module, query, key, value, attention_mask, scaling, dropout, **kwargs
        )
    found = []
    for group in _layout.groups:
        scores = torch.matmul(group.take(query) * scaling, group.take(key).transpose(2, 3))
        if not group.even:
            scores = scores + group.bias.to(scores.dtype)
        weights = drop(scores.softmax(-1), dropout, module.training)
        found.append(group.give(torch.matmul(weights, group.take(value))))
    return torch.cat(found).view(1, query.shape[2], query.shape[1], query.shape[3]), None


def _mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    return None if _layout is not None else eager_mask(*args, **kwargs)


def prepare(model: Any) -> int | None:
    """Make a model ready for packs.

    Returns:
        The number of a row's first position, or None where packs are refused; then the model
        is left as it was.
    """
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = whole.config
    attribute = ENCODERS.get(config.model_type)
    if (
        attribute is None
        or not type(whole).__name__.endswith("ForSequenceClassification")
        or getattr(config, "is_decoder", False)
    ):
        return None
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _mask)
    whole.set_attn_implementation(NAME)
    encoder = getattr(whole.base_model, attribute)
    encoder.register_forward_hook(_first_tokens)
    if attribute == "encoder":
        encoder.layer[-1].attention.output.register_forward_pre_hook(_narrow)
    return int(config.pad_token_id) + 1 if config.model_type == "roberta" else 0


def logits(
    model: torch.nn.Module,
    part: dict[str, torch.Tensor],
    of: Callable[[Any], torch.Tensor] = attrgetter("logits"),
) -> torch.Tensor:
    """Logits [n, k] of a pack: input_ids and position_ids [1, tokens], lengths [n], rising.

    Args:
        of: those of the model's output; see `stages.tasks.base.Task.logits`.
    """
    global _layout  # noqa: PLW0603
    _layout = Layout(part["lengths"].numpy())
    try:
        return of(model(**{name: part[name] for name in INPUTS if name in part}))
    finally:
        _layout = None


def _narrow(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
    """From the last layer's attention on, only the first tokens are read."""
    if _layout is None:
        return None
    first = _layout.first
    return tuple(x.index_select(1, first) for x in args)


def _first_tokens(module: torch.nn.Module, args: Any, output: Any) -> Any:
    """To the head, every row looks like its first token alone: [n, 1, hidden]."""
    if _layout is None:
        return None
    hidden = output.last_hidden_state
    if hidden.shape[1] != len(_layout.first):
        hidden = hidden.index_select(1, _layout.first)
    output.last_hidden_state = hidden.transpose(0, 1)
    return output
