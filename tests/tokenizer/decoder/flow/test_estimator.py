"""The estimator hides padding at every depth and length, and serves any sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from audiollm.tokenizer.decoder.configuration import EstimatorConfig
from audiollm.tokenizer.decoder.flow.estimator import Estimator
from audiollm.tokenizer.decoder.flow.masking import FrameMask, MaskedGroupNorm

NUM_MELS = 6


def make_estimator(**sizes: Any) -> Estimator:
    torch.manual_seed(0)
    values = {"channels": (8, 16), "num_heads": 2, "head_dim": 6, "blocks_per_stage": 2, "num_mid_stages": 2}
    return Estimator(EstimatorConfig(**(values | sizes)), NUM_MELS).eval()


def make_inputs(rows: int, frames: int) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "x": torch.randn(rows, NUM_MELS, frames),
        "mu": torch.randn(rows, NUM_MELS, frames),
        "t": torch.rand(rows),
        "speaker": torch.randn(rows, NUM_MELS),
        "condition": torch.randn(rows, NUM_MELS, frames),
    }


def cut(inputs: dict[str, Tensor], row: int, frames: int) -> dict[str, Tensor]:
    return {
        name: part[row : row + 1, ..., :frames] if part.dim() == 3 else part[row : row + 1]
        for name, part in inputs.items()
    }


@pytest.mark.parametrize("channels", [(8,), (8, 16), (16, 8, 24), (8, 8, 8, 8)])
@torch.no_grad()
def test_padding_cannot_be_noticed(channels: tuple[int, ...]) -> None:
    estimator = make_estimator(channels=channels).double()  # norms of the shortest rows would show float32's rounding
    lengths = torch.tensor([23, 1, 2, 7, 16, 22])
    inputs = {name: part.double() for name, part in make_inputs(len(lengths), 23).items()}
    mask = FrameMask.make(lengths, 23, inputs["x"])
    together = estimator(mask=mask, **inputs)
    for row, length in enumerate(lengths.tolist()):
        alone = estimator(mask=None, **cut(inputs, row, length))
        torch.testing.assert_close(together[row, :, :length], alone[0], atol=1e-9, rtol=0)
        assert not together[row, :, length:].any()


@torch.no_grad()
def test_padding_of_the_reference_is_noticed_and_treatments_agree_without_it() -> None:
    estimator = make_estimator()
    inputs = make_inputs(2, 12)
    lengths = torch.tensor([12, 7])
    reference = estimator(mask=FrameMask.make(lengths, 12, inputs["x"], "reference"), **inputs)
    hidden = estimator(mask=FrameMask.make(lengths, 12, inputs["x"], "hidden"), **inputs)
    assert (reference[1] - hidden[1]).abs().max() > 1e-3
    torch.testing.assert_close(reference[0], hidden[0], atol=1e-5, rtol=1e-5)


def test_gradients_of_a_padded_row_are_those_of_the_row_alone() -> None:
    estimator = make_estimator()
    inputs = make_inputs(2, 12)
    weight = estimator.down_blocks[0][0].block1.block[0].weight
    mask = FrameMask.make(torch.tensor([12, 7]), 12, inputs["x"])
    (together,) = torch.autograd.grad(estimator(mask=mask, **inputs)[1].square().sum(), weight)
    (alone,) = torch.autograd.grad(estimator(mask=None, **cut(inputs, 1, 7)).square().sum(), weight)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_one_time_serves_the_whole_batch() -> None:
    estimator = make_estimator()
    inputs = make_inputs(3, 5) | {"t": torch.full((3,), 0.3)}
    expected = estimator(mask=None, **inputs)
    torch.testing.assert_close(estimator(mask=None, **(inputs | {"t": torch.tensor([0.3])})), expected)


@torch.no_grad()
def test_every_input_matters() -> None:
    estimator = make_estimator()
    inputs = make_inputs(1, 9)
    plain = estimator(mask=None, **inputs)
    for name in inputs:
        changed = estimator(mask=None, **(inputs | {name: inputs[name] + 0.1}))
        assert not torch.allclose(changed, plain, atol=1e-6), name


@pytest.mark.parametrize("groups", [1, 4])
def test_masked_norm_is_the_plain_norm_of_the_valid_part(groups: int) -> None:
    torch.manual_seed(0)
    norm = MaskedGroupNorm(groups, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 8, 10) * 3 + 100  # far from zero: the variance must not be a difference of large numbers
    mask = FrameMask.make(torch.tensor([10, 4]), 10, x)
    made = norm(x, mask)
    torch.testing.assert_close(made[1:, :, :4], norm(x[1:, :, :4]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made[0], norm(x)[0], atol=1e-4, rtol=1e-4)
    assert FrameMask.make(torch.tensor([10, 10]), 10, x) is None
