"""Dropout from shared draws: the probabilities, the scale and the seed are torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stages.training.dropout import Dropout, dropout, replace, set_rate


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_right_share_is_dropped_and_the_rest_scaled(p: float, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    ones = torch.ones(1001, 1003, dtype=kind)
    found = dropout(ones, p, training=True)
    assert found.dtype == kind
    share = float((found == 0).float().mean())
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / ones.numel()) ** 0.5 + 1e-5)
    assert float(found.max()) == pytest.approx(1 / (1 - p), rel=1e-2)
    # Each of the four numbers of a draw, and each bit that decides, is as good as the others.
    by_place = (found.flatten()[: 4 * 250_000].view(-1, 4) == 0).float().mean(0)
    assert by_place.tolist() == pytest.approx([p] * 4, abs=0.005)
    pairs = (found[:, 1:] == 0) & (found[:, :-1] == 0)
    assert float(pairs.float().mean()) == pytest.approx(p * p, abs=0.003)


def test_it_is_a_function_of_the_seed() -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return dropout(torch.ones(50, 7), 0.3, training=True)

    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


def test_gradients_pass_where_numbers_did() -> None:
    x = torch.full((40, 3), 2.0, requires_grad=True)
    found = dropout(x, 0.4, training=True)
    found.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, found.detach() / 2)


def test_nothing_is_dropped_out_of_training_or_at_zero() -> None:
    x = torch.randn(5)
    assert dropout(x, 0.5, training=False) is x and dropout(x, 0.0, training=True) is x
    assert dropout(x, 1.0, training=True).count_nonzero() == 0


def test_every_layer_is_replaced() -> None:
    inner = nn.ModuleDict({"default": nn.Dropout(0.2)})
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), inner).eval()
    replace(model)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Dropout)]
    assert [(type(layer), layer.p, layer.training) for layer in layers] == [
        (Dropout, 0.1, False),
        (Dropout, 0.2, False),
    ]


def test_one_rate_for_layers_and_for_the_numbers_that_attention_is_handed() -> None:
    attention = nn.Linear(2, 2)
    attention.attention_dropout = 0.3  # type: ignore[assignment]
    attention.scaling = 0.5  # type: ignore[assignment]
    model = nn.Sequential(attention, nn.Dropout(0.1))
    set_rate(model, 0.2)
    assert (attention.attention_dropout, attention.scaling, model[1].p) == (0.2, 0.5, 0.2)
