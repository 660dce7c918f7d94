"""Rows laid end to end, [1, tokens], so that no layer computes padding but the few tokens that make
their number a multiple of `GRAIN`, [1, computed].

Everything but attention treats tokens one by one and never notices. Attention is computed for
a few groups of rows of like length, each as one product of matrices; inside a group short rows
are filled up and masked. The rest of the model is transformers' own, through its attention
interface, so this works for architectures whose positions can be given; others are refused, and
trained on padded parts.

What a head reads is found by its class: the first token of a row (classification by an encoder),
the last one (by a causal model), or every token (`...ForTokenClassification`, question answering,
language modelling); for the last, `logits` gives [tokens, k], row after row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import attrgetter
from types import MappingProxyType
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
# Model type to the attribute of the base model that holds its layers.
ENCODERS = {
    "bert": "encoder",
    "camembert": "encoder",
    "distilbert": "transformer",
    "electra": "encoder",
    "roberta": "encoder",
    "xlm-roberta": "encoder",
}
CAUSAL = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
OFFSET = ("camembert", "roberta", "xlm-roberta")  # positions begin after that of the padding
OF_ROWS = "ForSequenceClassification"
OF_TOKENS = ("ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM", "ForCausalLM",
             "LMHeadModel")  # fmt: skip


class Layout:
    """Where the rows of a pack are, and how attention groups them."""

    def __init__(
        self, lengths: np.ndarray, computed: int, device: torch.device, causal: bool
    ) -> None:
        """
        Args:
            lengths: tokens of each row [n], rising.
            computed: tokens of the pack, with those that fill it up.
            causal: the head of a row reads its last token, not its first.
        """
        self.tokens, self.computed = int(lengths.sum()), computed
        ends = np.cumsum(lengths)
        starts = ends - lengths
        self.first = torch.from_numpy(starts).to(device)
        self.last = torch.from_numpy(ends - 1).to(device)
        self.read = self.last if causal else self.first  # by a head that reads rows
        self.kept: torch.Tensor | None = None  # logits of the last tokens, [n, k]
        self.trunk: torch.Tensor | None = None  # what frozen layers make of the pack
        self.groups = []
        count = max(1, min(GROUPS, len(lengths) // 4))
        for rows in np.array_split(np.arange(len(lengths)), count):
            begin, end = int(starts[rows[0]]), int(ends[rows[-1]])
            self.groups.append(Group(begin, end, lengths[rows], device))


class Group:
    """Rows of like length: n rows of up to `width` tokens, from `begin` to `end` in the pack."""

    def __init__(self, begin: int, end: int, lengths: np.ndarray, device: torch.device) -> None:
        self.begin, self.end = begin, end
        self.rows, self.width = len(lengths), int(lengths.max())
        columns = np.arange(self.width)[None, :]
        mask = columns < lengths[:, None]
        self.even = bool(mask.all())
        starts = np.cumsum(lengths) - lengths
        filled = starts[:, None] + np.minimum(columns, lengths[:, None] - 1)
        self.tokens = torch.from_numpy(filled.ravel()).to(device)  # of the group, one a cell
        self.cells = torch.from_numpy(np.flatnonzero(mask)).to(device)  # one a token
        self._mask = torch.from_numpy(mask).to(device)
        self._biases: dict[bool, torch.Tensor | None] = {}

    def bias(self, causal: bool) -> torch.Tensor | None:
        """What is added to scores: [rows, 1, 1 or width, width], or None where all is seen."""
        if causal not in self._biases:
            seen = self._mask[:, None, None, :]
            if causal:  # a filled cell stands behind its row's tokens, which never look there
                seen = torch.ones(self.width, self.width, dtype=torch.bool).tril_()
                seen = seen.to(self._mask.device)[None, None]
            # A masked score underflows to a weight of exactly 0, in bfloat16 too.
            self._biases[causal] = (
                None if self.even and not causal else torch.where(seen, 0.0, -1e30)
            )
        return self._biases[causal]

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
    if key.shape[1] != query.shape[1]:  # several heads of the query share one of the key
        key, value = (
            x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value)
        )
    if _layout is None:
        return eager_attention_forward(
            module, query, key, value, attention_mask, scaling, dropout, **kwargs
        )
    attend = _products if query.device.type == "cpu" else _fused
    causal = bool(getattr(module, "is_causal", False))
    rate = dropout if module.training else 0.0
    found = []
    for group in _layout.groups:
        q, k, v = group.take(query), group.take(key), group.take(value)
        found.append(group.give(attend(q, k, v, group.bias(causal), scaling, rate)))
    found.append(found[0].new_zeros(_layout.computed - _layout.tokens, found[0].shape[1]))
    return torch.cat(found).view(1, query.shape[2], query.shape[1], query.shape[3]), None


def _products(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float,
    rate: float,
) -> torch.Tensor:
    """Attention of [rows, heads, width, d] as plain products: on CPUs faster than the fused."""
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    weights = drop(scores.softmax(-1), rate, training=True)
    return torch.matmul(weights.to(value.dtype), value)


def _fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float,
    rate: float,
) -> torch.Tensor:
    """The same by torch's fused kernels, which are exact under deterministic algorithms."""
    mask = None if bias is None else bias.to(query.dtype)
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=rate, scale=scaling
    )


def _mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    return None if _layout is not None else eager_mask(*args, **kwargs)


def prepare(model: Any) -> int | None:
    """Make a model ready for packs.

    Returns:
        The number of a row's first position, or None where packs are refused; then the model
        is left as it was.
    """
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = getattr(whole, "config", None)
    if config is None or not _is_known(whole, config):
        return None
    first_position = int(config.pad_token_id) + 1 if config.model_type in OFFSET else 0
    if config._attn_implementation == NAME:
        return first_position
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _mask)
    whole.set_attn_implementation(NAME)
    if config.model_type in CAUSAL:
        config.use_cache = False  # of keys and values, which nothing here reads again
        if type(whole).__name__.endswith(OF_ROWS):
            whole.score.register_forward_pre_hook(_last_tokens)
            whole.score.register_forward_hook(_keep)
    elif type(whole).__name__.endswith(OF_ROWS):
        attribute = ENCODERS[config.model_type]
        encoder = getattr(whole.base_model, attribute)
        encoder.register_forward_hook(_first_tokens)
        if attribute == "encoder":
            encoder.layer[-1].attention.output.register_forward_pre_hook(_narrow)
    return first_position


def _is_known(whole: Any, config: Any) -> bool:
    if not type(whole).__name__.endswith((OF_ROWS, *OF_TOKENS)):
        return False
    if whole.base_model._forward_pre_hooks:  # the method puts positions before each row
        return False
    if config.model_type in CAUSAL:
        return not (
            getattr(config, "sliding_window", None) or getattr(config, "reorder_and_upcast_attn", 0)
        )
    return config.model_type in ENCODERS and not getattr(config, "is_decoder", False)


def logits(
    model: torch.nn.Module,
    part: dict[str, torch.Tensor],
    of: Callable[[Any], torch.Tensor] = attrgetter("logits"),
    arguments: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> torch.Tensor:
    """Logits of a pack: [n, k], or [tokens, k] of a head on tokens.

    Args:
        part: input_ids and position_ids [1, computed], lengths [n], rising.
        of: those of the model's output; see `stages.tasks.base.Task.logits`.
        arguments: others of the model's forward pass; see `stages.tasks.base.Task.arguments`.
    """
    global _layout  # noqa: PLW0603
    ids = part["input_ids"]
    config = getattr(model, "config", None)
    causal = getattr(config, "model_type", None) in CAUSAL
    _layout = Layout(part["lengths"].cpu().numpy(), ids.shape[1], ids.device, causal)
    _layout.trunk = part.get("trunk")
    try:
        output = model(**{name: part[name] for name in INPUTS if name in part}, **arguments)
        if _layout.kept is not None:
            output.logits = _layout.kept + output.logits.sum() * 0
        found = of(output)
        return found[0, : _layout.tokens] if found.ndim == 3 else found
    finally:
        _layout = None


def recomputing() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """`context_fn` of torch.utils.checkpoint: what is computed again on the way back is of the
    pack that it was of before."""
    return nullcontext(), _of(_layout)


@contextmanager
def _of(layout: Layout | None) -> Iterator[None]:
    global _layout  # noqa: PLW0603
    before, _layout = _layout, layout
    try:
        yield
    finally:
        _layout = before


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


def _last_tokens(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
    """The head of a causal model computes the last tokens alone: [1, n, hidden]."""
    return None if _layout is None else (args[0].index_select(1, _layout.last), *args[1:])


def _keep(module: torch.nn.Module, args: Any, output: torch.Tensor) -> Any:
    """The model's own forward would look for each row's last token, and thinks of one row; it
    gets [1, computed, k] of zeros, and `logits` puts in what was computed. The zeros are of its
    graph, for fsdp gathers weights again when the gradient of the model's output is there."""
    if _layout is None:
        return None
    _layout.kept = output[0]
    return (output.sum() * 0).expand(1, _layout.computed, output.shape[-1])


class Port:
    """Where what frozen layers make of a pack is taken out, and put in instead of computing it:
    [tokens, hidden], or where all are frozen and the head reads rows, [n, hidden]."""

    def __init__(self, layers: list[torch.nn.Module], *, of_rows: bool) -> None:
        """
        Args:
            layers: the lowest layers of a model that is ready for packs.
        """
        self.of_rows = of_rows
        self._caught: torch.Tensor | None = None
        for layer in layers:
            _skip(layer, self if layer is layers[-1] else None)

    def catch(self, model: torch.nn.Module, part: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the layers make of a pack, by computing it."""
        logits(model, part, _nothing)
        assert self._caught is not None
        return self._caught[0]

    def out(self, layout: Layout, hidden: torch.Tensor) -> None:
        if not self.of_rows:
            hidden = hidden[:, : layout.tokens]
        elif hidden.shape[1] != len(layout.first):
            hidden = hidden.index_select(1, layout.read)
        self._caught = hidden

    def into(self, layout: Layout, hidden: torch.Tensor) -> torch.Tensor:
        assert layout.trunk is not None
        trunk = layout.trunk[None].to(hidden.dtype)
        if not self.of_rows:
            return torch.nn.functional.pad(trunk, (0, 0, 0, layout.computed - layout.tokens))
        if layout.read is layout.first:
            return trunk
        return torch.zeros_like(hidden).index_copy(1, layout.last, trunk)


def _skip(layer: torch.nn.Module, port: Port | None) -> None:
    """Have a layer hand its input on where the trunk of the pack is known."""
    forward = layer.forward

    def skipping(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if _layout is None or _layout.trunk is None:
            found = forward(hidden_states, *args, **kwargs)
            if port is not None and _layout is not None:
                port.out(_layout, found.detach())
            return found
        return hidden_states if port is None else port.into(_layout, hidden_states)

    layer.forward = skipping


def _nothing(output: Any) -> torch.Tensor:
    return torch.empty(0, 0)


def reads_rows(model: Any) -> bool:
    """Does a model's head read one token of each row?"""
    return type(model).__name__.endswith(OF_ROWS)
