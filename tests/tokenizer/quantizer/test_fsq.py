"""Rounding to a grid: codes name its points, in the order of their digits."""

from __future__ import annotations

import pytest
import torch

from audiollm.tokenizer.quantizer.fsq import FiniteScalarQuantizer


@pytest.mark.parametrize(("num_dims", "num_levels"), [(8, 3), (3, 5), (1, 7)])
def test_each_point_of_the_grid_has_its_own_code(num_dims: int, num_levels: int) -> None:
    quantizer = FiniteScalarQuantizer(num_dims, num_dims, num_levels)
    with torch.no_grad():
        quantizer.project_down.weight.copy_(torch.eye(num_dims))
        quantizer.project_down.bias.zero_()
    codes = torch.arange(quantizer.codebook_size)
    half = num_levels // 2
    digits = codes[:, None] // num_levels ** torch.arange(num_dims) % num_levels - half
    # From a little within each level, back to what tanh makes it of.
    features = (0.98 * digits / half).atanh()
    assert torch.equal(quantizer.encode(features), codes)
    assert torch.equal(quantizer.bound(quantizer.project(features)).round().long(), digits)


def test_nothing_is_rounded_beyond_the_outermost_level() -> None:
    quantizer = FiniteScalarQuantizer(4, 2, 5)
    codes = quantizer.encode(1e6 * torch.randn(500, 4))
    assert 0 <= int(codes.min()) <= int(codes.max()) < 25


@pytest.mark.parametrize("num_levels", [1, 4])
def test_an_even_number_of_levels_is_refused(num_levels: int) -> None:
    with pytest.raises(ValueError, match=f"num_levels={num_levels}"):
        FiniteScalarQuantizer(4, 2, num_levels)
