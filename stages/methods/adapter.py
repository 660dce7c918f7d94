"""Bottleneck adapters between the frozen layers, and the head.

`houlsby`: two a layer, each after a projection back and before the residual is added, and the
layer norms are trained too (Houlsby et al., "Parameter-Efficient Transfer Learning for NLP",
2019, arXiv:1902.00751). `pfeiffer`: one a layer, after the feed-forward part, whose residual is
taken before the layer norm (Pfeiffer et al., "AdapterFusion", 2020, arXiv:2005.00247, with the
placement of "MAD-X", arXiv:2005.00052). In layers that are normed first, as those of GPT-2 and
Llama, either stands after the projection and before the residual is added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from stages.adaptation import Adapted, blocks, train_only
from stages.errors import UnsuitedError
from stages.params import Section

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


LIBRARIES: tuple[str, ...] = ()
PLAIN = False
# Of a layer: projection back from attention, projection back from the feed-forward part, and the
# norm behind that, if there is one.
PLACES: tuple[tuple[str, str, str | None], ...] = (
    ("attention.output.dense", "output.dense", "output.LayerNorm"),  # BERT, RoBERTa, ELECTRA
    ("attention.out_lin", "ffn.lin2", "output_layer_norm"),  # DistilBERT
    ("attn.c_proj", "mlp.c_proj", None),  # GPT-2
    ("self_attn.o_proj", "mlp.down_proj", None),  # Llama, Mistral, Qwen
)
NORMS = ("layernorm", "layer_norm", ".ln_")  # in the names of their weights, lower case


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")
    kind: Literal["houlsby", "pfeiffer"]
    size: int = Field(ge=1, description="width of the bottleneck")


def refuses(task: str) -> str | None:
    return None


def apply(model: PreTrainedModel, new: list[str], params: Params) -> Adapted:
    """
    Raises:
        UnsuitedError: the base's layers are of a kind that this method does not know.
    """
    path, layers = blocks(model)
    inside = {name for name, _ in layers[0].named_modules()}
    places = next((x for x in PLACES if inside.issuperset(filter(None, x))), None)
    if places is None:
        raise UnsuitedError(
            f"adapters know no base of the kind {model.config.model_type!r}",
            "take BERT, RoBERTa, ELECTRA, DistilBERT, GPT-2, Llama, Mistral or Qwen, or write lora",
            "adapter",
        )
    attention, output, norm = places
    for layer in layers:
        if params.kind == "houlsby":
            for place in (attention, output):
                _insert(layer, place, params.size, "gelu", _before_residual)
        elif norm:
            _insert(layer, norm, params.size, "relu", _around_norm)
        else:
            _insert(layer, output, params.size, "relu", _before_residual)
    norms = NORMS if params.kind == "houlsby" else ()
    own = [
        name
        for name, _ in model.named_parameters()
        if ".adapter." in name
        or (name.startswith(f"{path}.") and any(part in name.lower() for part in norms))
    ]
    train_only(model, [*own, *new])
    return Adapted(model)


def _insert(layer: nn.Module, place: str, size: int, activation: str, hook: Any) -> None:
    """Put an adapter into a layer at the module named; near the identity at first."""
    from torch import nn

    module: Any = layer.get_submodule(place)
    width = getattr(module, "nf", module.weight.shape[0])  # GPT-2's weights are [in, out]
    adapter: Any = nn.Sequential(
        nn.Linear(width, size), nn.GELU() if activation == "gelu" else nn.ReLU(),
        nn.Linear(size, width),
    )  # fmt: skip
    for linear in (adapter[0], adapter[2]):
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
    module.add_module("adapter", adapter)
    module.register_forward_hook(hook)


def _before_residual(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
    return output + module.adapter(output)


def _around_norm(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import layer_norm

    changed = args[0] + module.adapter(output)
    return layer_norm(changed, module.normalized_shape, module.weight, module.bias, module.eps)


def merge(module: PreTrainedModel) -> PreTrainedModel:
    return module
