"""Layers in 8-bit integers: near the floats, row by row, for inference on processors alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from audiollm.tokenizer import int8
from audiollm.tokenizer.int8 import Int8Linear, input_levels, to_int8
from audiollm.tokenizer.linear import Linear


@pytest.fixture
def layer() -> Linear:
    torch.manual_seed(0)
    return Linear(96, 128).requires_grad_(False)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (found - expected).norm(dim=-1) / expected.norm(dim=-1)


@pytest.mark.parametrize("shape", [(1, 96), (5, 96), (2, 3, 96), (96,), (0, 96)])
def test_products_are_near_those_of_floats(layer: Linear, shape: tuple[int, ...]) -> None:
    input = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found, expected = Int8Linear(layer)(input), layer(input)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert (relative_error(found, expected) < 0.03).all()


def test_no_row_depends_on_another(layer: Linear) -> None:
    """However large the others are: one scale for all rows would round the small ones away."""
    rows = torch.randn(9, 96, generator=torch.Generator().manual_seed(1)) * torch.logspace(-4, 4, 9)[:, None]
    rounded = Int8Linear(layer)
    together = rounded(rows)
    for number, row in enumerate(rows):
        assert torch.equal(rounded(row[None])[0], together[number])
    layer.bias.zero_()
    assert (relative_error(Int8Linear(layer)(rows), layer(rows)) < 0.03).all()


def test_zeros_and_rows_of_one_sign(layer: Linear) -> None:
    rows = torch.cat([torch.zeros(1, 96), torch.rand(1, 96), -torch.rand(1, 96)])
    found, expected = Int8Linear(layer)(rows), layer(rows)
    assert torch.equal(found[0], layer.bias)
    assert (relative_error(found, expected) < 0.03).all()


def test_largest_values_do_not_overflow(layer: Linear) -> None:
    """Sums of the largest products are where 16 bits end."""
    layer.weight.fill_(1.0)
    found = Int8Linear(layer)(torch.ones(1, 96))
    torch.testing.assert_close(found, layer(torch.ones(1, 96)), rtol=0.01, atol=0)


def test_coarser_inputs_where_products_overflow(layer: Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, input = int8._product, torch.randn(4, 96)
    monkeypatch.setattr(int8, "_product", lambda rows, packed, levels: exact(rows, packed, levels) * (levels < 127))
    input_levels.cache_clear()
    try:
        assert input_levels() == 63
        assert (relative_error(Int8Linear(layer)(input), layer(input)) < 0.06).all()
        monkeypatch.setattr(int8, "_product", lambda rows, packed, levels: exact(rows, packed, levels) * 0)
        input_levels.cache_clear()
        with pytest.raises(ValueError, match="wrong products on this machine: use float32"):
            to_int8(nn.Sequential(layer))
    finally:
        input_levels.cache_clear()


def test_a_torch_without_the_kernel_is_told(layer: Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "INT8_KERNEL", "linear_in_four_bits")
    input_levels.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"int8: torch .* has no kernel for it on this machine: use float32"):
            to_int8(nn.Sequential(layer))
    finally:
        input_levels.cache_clear()


def test_all_layers_of_some_size_are_put_in_place(layer: Linear) -> None:
    model = nn.ModuleDict({"deep": nn.Sequential(layer, nn.GELU()), "small": nn.Linear(128, 3)})
    assert to_int8(model) is model
    assert isinstance(model["deep"][0], Int8Linear)
    assert isinstance(model["small"], nn.Linear)


def test_what_cannot_be_done_is_refused(layer: Linear) -> None:
    model = to_int8(nn.Sequential(layer))
    with pytest.raises(ValueError, match=r"0\.weight is rounded to int8, which cannot be saved"):
        model.state_dict()
    with pytest.raises(ValueError, match="no gradient: train the model in float32"):
        model(torch.randn(2, 96, requires_grad=True))
    with pytest.raises(ValueError, match="on processors only, and the input is on meta"):
        model(torch.randn(2, 96, device="meta"))
    with pytest.raises(ValueError, match="int8 is for processors, and 0 is on meta"):
        to_int8(nn.Sequential(nn.Linear(96, 96, device="meta")))
