"""What a method makes of a model: the module to train, and how, where that is not as usual.

Also the few things that methods ask about any transformers model. Methods import this, and
never one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stages.errors import UnsuitedError, UserError
from stages.positions import limit

if TYPE_CHECKING:
    import numpy as np
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Adapted:
    """What `Method.apply` returns. Weights are named as `module.named_parameters()` does; those
    with `requires_grad` are trained, saved and loaded."""

    module: nn.Module
    rates: Mapping[str, float] = field(default_factory=dict)
    """Share of the learning rate, for weights that do not take all of it."""
    undecayed: frozenset[str] = frozenset()
    """Weights that AdamW must not decay, beside biases and norms."""
    joins: Mapping[str, int] = field(default_factory=dict)
    """Epoch, counted from 0, before which a weight is left as it is; left out: 0."""
    start: Callable[[Start], None] | None = None
    """Sets weights from the training rows, before the first step."""
    steps: bool = True
    """False: `start` does all, and no gradient steps follow."""
    cached: bool = False
    """Layers read trained keys and values, which transformers drops where it computes them again
    on the way back."""


@dataclass(frozen=True)
class Start:
    """What `Adapted.start` may use.

    `rows[numbers]` are the parts of a padded batch: mappings with input_ids and attention_mask
    [n, length], token_type_ids where the model tells two texts apart, and row [n], the number of
    each row. `rows.tokens` are all rows' token ids end to end, `rows.offsets` [n + 1] where each
    begins.
    """

    rows: Any
    targets: np.ndarray  # [n]
    weight: np.ndarray | None  # of the classes in the loss [k]
    seed: int
    device: str


def train_only(model: nn.Module, names: Iterable[str]) -> None:
    """Freeze all weights but those named."""
    chosen = set(names)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in chosen)


def blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The layers of a transformers model, lowest first, and their path in it.

    Raises:
        UnsuitedError: it has no list of like layers.
    """
    from torch import nn

    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(layer) for layer in module}) == 1
    ]
    if not lists:
        raise UnsuitedError(
            f"needs a base with a list of like layers, which {model.config.model_type!r} has not",
            "write full or head_only",
        )
    return max(lists, key=lambda pair: sum(p.numel() for p in pair[1].parameters()))


def depths(model: PreTrainedModel, new: Iterable[str]) -> dict[str, int]:
    """How far from the input each weight is: 0 for embeddings, 1 for the lowest layer, and for
    the head and what else comes after the top layer one more than there are layers."""
    path, layers = blocks(model)
    found: dict[str, int] = {}
    depth = 0
    for name, _ in model.named_parameters():  # in the order of computation
        if name.startswith(f"{path}."):
            depth = 1 + int(name.removeprefix(f"{path}.").partition(".")[0])
            found[name] = depth
        else:
            found[name] = len(layers) + 1 if depth or name in new else 0
    return found


def is_causal(model: PreTrainedModel) -> bool:
    """Does a token see only those before it? Layers say so, or the head, which transformers calls
    `score` where it reads a row's last token."""
    said = any(getattr(module, "is_causal", False) for module in model.modules())
    return said or hasattr(model, "score") or type(model).__name__.endswith("ForCausalLM")


PREPENDED = "prepended"  # attribute of a base: how many positions a method takes before each row


def positions(model: PreTrainedModel) -> int | None:
    """How many tokens a row may have beside those; None: the base sets no limit."""
    of_base = limit(model.config.to_dict())
    return None if of_base is None else of_base - int(getattr(model.base_model, PREPENDED, int)())


def prepend(
    model: PreTrainedModel,
    length: Callable[[], int],
    change: Callable[[dict[str, Any], int], None],
    key: str,
) -> None:
    """Have the base see so many positions more before each row, all of them attended to.

    Where a text is written token by token, the keys and values of the past hold them already.

    Args:
        change: is called with the arguments by name of each forward pass of the base that begins
            its rows, and the number of rows; puts there what stands at those positions.
        key: of params.yaml, that says how many the method takes.

    Raises:
        UserError: in a forward pass, when the base has too few positions.
    """
    import torch

    of_base = limit(model.config.to_dict())

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kwargs = dict(zip(("input_ids", "attention_mask"), args, strict=False)) | kwargs
        rows, columns = kwargs["input_ids"].shape
        taken = length()
        if of_base is not None and columns > of_base - taken:
            room = of_base - taken
            advice = f"write at most {room}, or lower {key}" if room > 0 else f"lower {key}"
            raise UserError(
                f"params.yaml: tokenize.max_length: the base has {of_base} positions, of "
                f"which the method takes {taken}, got a row of {columns} tokens; {advice}"
            )
        if kwargs.get("attention_mask") is not None:
            mask = kwargs["attention_mask"]
            kwargs["attention_mask"] = torch.cat([mask.new_ones(rows, taken), mask], 1)
        if kwargs.get("position_ids") is not None:
            kwargs["position_ids"] = kwargs["position_ids"] + taken
        past = kwargs.get("past_key_values")
        if past is None or past.get_seq_length() == 0:
            change(kwargs, rows)
        return (), kwargs

    setattr(model.base_model, PREPENDED, length)
    model.base_model.register_forward_pre_hook(hook, with_kwargs=True)


def put_past(kwargs: dict[str, Any], layers: Iterable[tuple[Any, Any]], rows: int) -> None:
    """Put keys and values before those of each row, into the cache where one is given.

    Args:
        layers: of each layer its keys and values, [1, heads, positions, size].
    """
    from transformers import DynamicCache

    cache = kwargs.get("past_key_values")  # an empty one, where texts are written
    cache = DynamicCache() if cache is None else cache
    for number, pair in enumerate(layers):
        key, value = (x.expand(rows, -1, -1, -1) for x in pair)
        cache.update(key, value, number)
    kwargs["past_key_values"] = cache
