"""For few examples: a linear classifier on the base's sentence vectors, without gradient steps
through the base, or after tuning it by contrast.

The vector is the mean over a row's tokens, of length 1 (Reimers and Gurevych, "Sentence-BERT",
2019, arXiv:1908.10084). `class_means` takes the nearest mean of a class (Snell, Swersky and Zemel,
"Prototypical Networks for Few-shot Learning", 2017, arXiv:1703.05175), `logistic_regression` is
scikit-learn's. `contrastive` first draws vectors of one class together and those of others apart
(Tunstall et al., "Efficient Few-Shot Learning Without Prompts", 2022, arXiv:2209.11055: SetFit).

A causal model that writes texts is shown examples before each row, and nothing is trained (Brown et
al., "Language Models are Few-Shot Learners", 2020, arXiv:2005.14165). What it makes of them is
computed once. It takes large models to learn from that.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stages.adaptation import Adapted, Start, prepend, put_past, train_only
from stages.errors import UserError
from stages.params import Section

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


LIBRARIES = ("scikit-learn",)
PLAIN = False
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
BATCH = 64  # rows at a time, where no gradient is taken
NEVER = -100.0  # logit of a class without training rows


class Params(Section):
    learning_rate: float = Field(gt=0, description="of contrastive tuning")
    classifier: Literal["class_means", "logistic_regression"]
    inverse_penalty: float = Field(gt=0, description="C of the logistic regression")
    contrastive: bool = Field(description="tune the base by contrast first")
    iterations: int = Field(ge=1, description="pairs of each kind for a row")
    batch_size: int = Field(ge=1, description="pairs")
    examples: int = Field(ge=1, description="shown to a model that writes texts")
    context: int = Field(ge=1, description="tokens of theirs at most; they count as tokens")


def refuses(task: str) -> str | None:
    if task in ("classification", "generation"):
        return None
    return "it compares the texts of classes, or shows examples to a model that writes texts"


def apply(model: PreTrainedModel, new: list[str], params: Params) -> Adapted:
    if type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        return _in_context(model, params)
    module = _module(model)
    names = [name for name, _ in module.named_parameters()]
    tuned = [name for name in names if params.contrastive and "pooler" not in name]
    train_only(module, {*tuned, "head.weight", "head.bias"})
    return Adapted(module, start=partial(_start, module, params), steps=False)


def _module(model: PreTrainedModel) -> nn.Module:
    """Base and linear head, called as a transformers model is."""
    import torch
    from torch.nn import functional
    from transformers.modeling_outputs import SequenceClassifierOutput

    config: Any = model.config
    encoder: Any = model.base_model

    class SentenceClassifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = config
            self.encoder = encoder
            self.head = torch.nn.Linear(config.hidden_size, config.num_labels)

        def set_attn_implementation(self, name: str) -> None:
            self.encoder.set_attn_implementation(name)

        def vectors(self, attention_mask: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
            """[n, hidden], each of length 1."""
            out = self.encoder(attention_mask=attention_mask, **inputs)
            kept = attention_mask[..., None].to(out.last_hidden_state.dtype)
            mean = (out.last_hidden_state * kept).sum(1) / kept.sum(1)
            return functional.normalize(mean, dim=-1)

        def forward(self, **inputs: torch.Tensor) -> Any:
            return SequenceClassifierOutput(logits=self.head(self.vectors(**inputs)))

    return SentenceClassifier()


def _start(module: Any, params: Params, start: Start) -> None:
    """Tune, if asked to, and set the head."""
    import torch

    module.to(start.device)
    if params.contrastive:
        _contrast(module, params, start)
    module.eval()
    count = len(start.targets)
    with torch.no_grad():
        found = [
            _vectors(module, start, np.arange(first, min(first + BATCH, count))).cpu().numpy()
            for first in range(0, count, BATCH)
        ]
        fit = _class_means if params.classifier == "class_means" else _logistic_regression
        classes = len(module.head.bias)
        weight, bias = fit(np.concatenate(found), start.targets, classes, params, start.weight)
        module.head.weight.copy_(torch.from_numpy(weight))
        module.head.bias.copy_(torch.from_numpy(bias))


def _vectors(module: Any, start: Start, rows: np.ndarray) -> torch.Tensor:
    """Vectors of rows, in the order of their numbers, which rise."""
    import torch

    parts = start.rows[rows]
    vectors = torch.cat(
        [
            module.vectors(**{key: part[key].to(start.device) for key in INPUTS if key in part})
            for part in parts
        ]
    )
    order = torch.cat([part["row"] for part in parts]).argsort()
    return vectors[order.to(start.device)]


def _class_means(
    vectors: np.ndarray, targets: np.ndarray, classes: int, params: Params, weight: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The negative squared distance to a class's mean m, up to a term that all classes share, is
    linear: 2 m x - m m."""
    means = np.zeros((classes, vectors.shape[1]))
    bias = np.full(classes, NEVER)
    for number in np.unique(targets):
        means[number] = vectors[targets == number].mean(0, dtype=np.float64)
        bias[number] = -means[number] @ means[number]
    return 2 * means, bias


def _logistic_regression(
    vectors: np.ndarray, targets: np.ndarray, classes: int, params: Params, weight: Any
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    present = np.unique(targets)
    weights, bias = np.zeros((classes, vectors.shape[1])), np.full(classes, NEVER)
    if len(present) == 1:
        bias[present] = 0.0
        return weights, bias
    model = LogisticRegression(C=params.inverse_penalty, max_iter=1000)
    model.fit(vectors.astype(np.float64), targets, None if weight is None else weight[targets])
    if len(present) == 2:  # one row of coefficients, for the second
        halves = np.array([[-0.5], [0.5]])
        weights[present], bias[present] = halves * model.coef_, halves[:, 0] * model.intercept_
    else:
        weights[present], bias[present] = model.coef_, model.intercept_
    return weights, bias


def pairs(targets: np.ndarray, iterations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """SetFit's pairs: in each iteration, every row with another of its class and with one of
    another class, where there is one; in random order.

    Returns:
        Numbers of rows [p, 2], and whether both have one class [p].
    """
    draw = np.random.default_rng([seed, 2])
    found: list[tuple[int, int, bool]] = []
    numbers = np.arange(len(targets))
    for _ in range(iterations):
        for row, target in enumerate(targets):
            same = numbers[(targets == target) & (numbers != row)]
            other = numbers[targets != target]
            found += [(row, int(draw.choice(same)), True)] if len(same) else []
            found += [(row, int(draw.choice(other)), False)] if len(other) else []
    order = draw.permutation(len(found))
    rows = np.array([pair[:2] for pair in found], dtype=np.int64).reshape(-1, 2)
    return rows[order], np.array([pair[2] for pair in found], dtype=bool)[order]


def _contrast(module: Any, params: Params, start: Start) -> None:
    """Train the base so that the cosine of a pair is 1 within a class and 0 across; AdamW, warm-up
    over a tenth of the steps, then linear decay."""
    import torch

    chosen, same = pairs(start.targets, params.iterations, start.seed)
    batches = np.array_split(chosen, np.arange(params.batch_size, len(chosen), params.batch_size))
    wanted = np.array_split(same, np.arange(params.batch_size, len(chosen), params.batch_size))
    trained = [weight for weight in module.encoder.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=params.learning_rate, weight_decay=0.01)
    warm = max(1, len(batches) // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm, (len(batches) - step) / max(1, len(batches) - warm)),
    )
    torch.manual_seed(start.seed)
    module.train()
    for batch, due in zip(batches, wanted, strict=True):
        rows, place = np.unique(batch, return_inverse=True)
        vectors = _vectors(module, start, rows)[torch.from_numpy(place.reshape(-1, 2))]
        cosine = (vectors[:, 0] * vectors[:, 1]).sum(-1)
        target = torch.from_numpy(due).to(cosine)
        torch.nn.functional.mse_loss(cosine, target).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def _in_context(model: PreTrainedModel, params: Params) -> Adapted:
    """The weights that are kept are the numbers of the examples' tokens [context], of which those
    below 0 are none."""
    import torch

    base: Any = model.base_model
    base.register_parameter("context", torch.nn.Parameter(torch.full((params.context,), -1.0)))
    train_only(model, [name for name, weight in model.named_parameters() if weight is base.context])
    layers: list[tuple[torch.Tensor, torch.Tensor]] = []  # keys and values of the examples

    def start(start: Start) -> None:
        chosen = torch.from_numpy(_shown(start, params)).float()
        with torch.no_grad():
            base.context[: len(chosen)] = chosen

    def put(kwargs: dict[str, Any], rows: int) -> None:
        if not layers:
            ids = base.context[base.context >= 0].long()[None]
            with torch.no_grad():  # by its plain forward pass, which puts nothing before them
                cache = base.forward(input_ids=ids, use_cache=True).past_key_values
            layers.extend((layer.keys, layer.values) for layer in cache.layers)
        put_past(kwargs, layers, rows)

    prepend(model, lambda: int((base.context >= 0).sum()), put, "methods.few_shot.context")
    return Adapted(model, start=start, steps=False, cached=True)


def _shown(start: Start, params: Params) -> np.ndarray:
    """Tokens of the examples, end to end: of rows in random order those for which there is room.

    Raises:
        UserError: there is none for any.
    """
    tokens, offsets = start.rows.tokens, start.rows.offsets
    sizes, left = np.diff(offsets), params.context
    found: list[np.ndarray] = []
    for row in np.random.default_rng([start.seed, 3]).permutation(len(sizes)):
        if len(found) < params.examples and sizes[row] <= left:
            found.append(tokens[offsets[row] : offsets[row + 1]])
            left -= int(sizes[row])
    if not found:
        raise UserError(
            f"params.yaml: methods.few_shot.context: the shortest example has {sizes.min()} "
            f"tokens, got {params.context}; write at least {sizes.min()}"
        )
    return np.concatenate(found)


def merge(module: nn.Module) -> nn.Module:
    return module
