"""The faster linear layer computes what torch's does, forward and backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from audiollm.tokenizer.linear import Linear, linear


@pytest.mark.parametrize("shape", [(3, 5, 7), (4, 7), (7,), (0, 7)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_values_and_gradients_are_those_of_torch(shape: tuple[int, ...], has_bias: bool) -> None:
    torch.manual_seed(0)
    inputs: list[Tensor] = [torch.randn(shape), torch.randn(6, 7), *([torch.randn(6)] if has_bias else [])]
    results = []
    for function in (linear, F.linear):
        own = [tensor.clone().requires_grad_() for tensor in inputs]
        output = function(*own)
        (output * torch.arange(6.0)).sum().backward()
        results.append([output, *(tensor.grad for tensor in own)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def test_only_what_needs_a_gradient_gets_one() -> None:
    layer = Linear(7, 6)
    layer.weight.requires_grad_(False)
    inputs = torch.randn(2, 7)
    layer(inputs).sum().backward()
    assert layer.weight.grad is None
    assert torch.equal(layer.bias.grad, torch.full((6,), 2.0))


def test_transposed_inputs_and_gradients() -> None:
    columns, weight = torch.randn(7, 5, requires_grad=True), torch.randn(6, 7)
    upstream = torch.randn(6, 5)
    linear(columns.t(), weight).t().backward(upstream)
    assert columns.grad is not None
    torch.testing.assert_close(columns.grad, (upstream.t() @ weight).t())


def test_recomputed_layers_get_the_same_gradient() -> None:
    layer, inputs = Linear(7, 7), torch.randn(3, 7, requires_grad=True)
    gradients = []
    for run in (layer, lambda values: checkpoint(layer, values, use_reentrant=False)):
        (gradient,) = torch.autograd.grad(run(inputs).square().sum(), inputs)
        gradients.append(gradient)
    assert torch.equal(*gradients)


def test_under_autocast_the_layer_is_torchs_own() -> None:
    layer, inputs = Linear(7, 6), torch.randn(3, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(inputs), F.linear(inputs, layer.weight, layer.bias))
        assert layer(inputs).dtype == torch.bfloat16
