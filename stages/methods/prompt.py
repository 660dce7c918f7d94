"""Prompt tuning: vectors before each row's tokens are trained, and the head (Lester, Al-Rfou and
Constant, "The Power of Scale for Parameter-Efficient Prompt Tuning", 2021, arXiv:2104.08691).

As in peft, they stand before [CLS], and a head that reads a row's first position reads the first
of them; one of a causal model reads the row's own tokens. The paper finds that it takes models of
billions of weights to equal full training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages.adaptation import Adapted, is_causal, prepend, train_only
from stages.params import Section

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


LIBRARIES: tuple[str, ...] = ()
PLAIN = False


class Params(Section):
    learning_rate: float | None = Field(None, gt=0, description="null: finetune.learning_rate")
    length: int = Field(ge=1, description="vectors before each row; they count as tokens")


def refuses(task: str) -> str | None:
    return None


def apply(model: PreTrainedModel, new: list[str], params: Params) -> Adapted:
    import torch
    from torch import nn

    words: Any = model.get_input_embeddings()
    chosen = torch.randint(words.num_embeddings, (params.length,))  # the paper's "sampled vocab"
    train_only(model, new)
    prompt = nn.Parameter(words.weight[chosen].detach().clone())
    base: Any = model.base_model
    base.register_parameter("prompt", prompt)

    def put(kwargs: dict[str, Any], rows: int) -> None:
        embedded = words(kwargs.pop("input_ids"))
        # Not the variable: where weights are shared out, the base has others while it computes.
        before = base.prompt.to(embedded.dtype).expand(rows, -1, -1)
        kwargs["inputs_embeds"] = torch.cat([before, embedded], 1)
        if kwargs.get("token_type_ids") is not None:
            types = kwargs["token_type_ids"]
            kwargs["token_type_ids"] = torch.cat([types.new_zeros(rows, params.length), types], 1)
        if kwargs.get("position_ids") is not None:
            places = kwargs["position_ids"]
            own = torch.arange(params.length, device=places.device).expand(len(places), -1)
            kwargs["position_ids"] = torch.cat([own, places], 1)

    prepend(model, lambda: params.length, put, "methods.prompt.length")
    if is_causal(model) or not type(model).__name__.endswith("ForSequenceClassification"):
        # The head reads each token, or looks for the last one.
        model.base_model.register_forward_hook(_rows_tokens, with_kwargs=True)
    return Adapted(
        model, undecayed=frozenset(n for n, p in model.named_parameters() if p is prompt)
    )


def _rows_tokens(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    if kwargs.get("inputs_embeds") is not None:  # the pass that began the rows
        output.last_hidden_state = output.last_hidden_state[:, len(module.prompt) :]
    return output


def as_peft(model: Any, kind: str) -> tuple[dict[str, Any], torch.Tensor] | None:
    """As stages/exporting/adapters.py wants it; not of heads on tokens."""
    if kind == "TOKEN_CLS":
        return None
    prompt = model.base_model.prompt
    settings = {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": len(prompt),
        "token_dim": prompt.shape[1],
        "num_layers": model.config.num_hidden_layers,
        "num_attention_heads": model.config.num_attention_heads,
    }
    return settings, prompt


def merge(module: PreTrainedModel) -> PreTrainedModel:
    return module
