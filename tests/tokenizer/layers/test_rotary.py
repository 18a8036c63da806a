"""Rotated queries and keys: products tell how far apart two frames are, and nothing else about their places."""

from __future__ import annotations

import torch

from audiollm.tokenizer.layers.rotary import rotary_angles, rotate


def test_products_depend_on_distance_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 8)
    angles = rotary_angles(20, 8, torch.device("cpu"))
    queries, keys = (rotate(one.expand(1, 1, 20, 8), angles)[0, 0] for one in (query, key))
    products = queries @ keys.t()
    for distance in range(-19, 20):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
    torch.testing.assert_close(products[0, 0], query @ key)
    assert products[0].std() > 0.1


def test_a_channel_of_the_first_half_turns_with_one_of_the_second() -> None:
    angles = rotary_angles(5, 4, torch.device("cpu"), base=100.0)
    turned = rotate(torch.tensor([1.0, 0, 0, 0]).expand(1, 1, 5, 4), angles)[0, 0]
    frames = torch.arange(5.0)
    torch.testing.assert_close(turned, torch.stack([frames.cos(), 0 * frames, frames.sin(), 0 * frames], dim=1))
    assert rotate(torch.zeros(1, 1, 5, 4, dtype=torch.bfloat16), angles).dtype == torch.bfloat16
