"""The token encoder hides padding, sees blocks, and gives the same numbers block by block."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from audiollm.tokenizer.decoder.configuration import TokenEncoderConfig
from audiollm.tokenizer.decoder.flow import token_encoder
from audiollm.tokenizer.decoder.flow.token_encoder import RelativeAttention, TokenEncoder


def make_encoder(block_size: int = 4) -> TokenEncoder:
    torch.manual_seed(0)
    config = TokenEncoderConfig(
        size=16, num_heads=2, feed_forward_size=24, num_blocks=3, block_size=block_size, attention_dropout=0.3
    )
    return TokenEncoder(config, input_size=12).eval()


def lengths_of(embedded: Tensor) -> Tensor:
    return torch.full((len(embedded),), embedded.shape[1])


def plain_attention(module: RelativeAttention, x_TD: Tensor, block_size: int) -> Tensor:
    """One query, one head, one key at a time, straight from the definition."""
    num_codes, size = x_TD.shape
    head_dim = size // module.num_heads
    out = torch.zeros(num_codes, size)
    queries, keys, values = module.linear_q(x_TD), module.linear_k(x_TD), module.linear_v(x_TD)
    for head in range(module.num_heads):
        part = slice(head * head_dim, (head + 1) * head_dim)
        for i in range(num_codes):
            seen = [j for j in range(num_codes) if j <= i or j // block_size == i // block_size]
            scores = []
            for j in seen:
                rates = torch.exp(torch.arange(0, size, 2) * (-math.log(10000) / size))
                sinusoid = torch.stack([((i - j) * rates).sin(), ((i - j) * rates).cos()], dim=1).flatten()
                by_content = (queries[i, part] + module.pos_bias_u[head]) @ keys[j, part]
                by_distance = (queries[i, part] + module.pos_bias_v[head]) @ module.linear_pos(sinusoid)[part]
                scores.append((by_content + by_distance) / math.sqrt(head_dim))
            out[i, part] = torch.stack(scores).softmax(0) @ values[seen, part]
    return module.linear_out(out)


@pytest.mark.parametrize(("num_codes", "max_queries"), [(1, 1024), (9, 1024), (9, 2), (8, 3)])
@torch.no_grad()
def test_attention_follows_its_definition(num_codes: int, max_queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_encoder, "MAX_QUERIES", max_queries)
    encoder = make_encoder()
    attention = encoder.encoders[0].self_attn
    x = torch.randn(1, num_codes, 16)
    positions = encoder.sinusoids(num_codes - 1, 1 - num_codes, x)
    made = attention(x, positions, encoder.visibility(num_codes, torch.tensor([num_codes])))
    torch.testing.assert_close(made[0], plain_attention(attention, x[0], block_size=4), atol=1e-5, rtol=1e-5)


def test_a_code_sees_its_own_block_and_the_past_only() -> None:
    encoder = make_encoder(block_size=4)
    embedded = torch.randn(1, 11, 12, requires_grad=True)
    for code, last_seen in [(0, 3), (3, 3), (4, 7), (10, 10)]:
        (gradient,) = torch.autograd.grad(encoder(embedded, lengths_of(embedded))[0, code, 0], embedded)
        seen = gradient[0].abs().sum(1).nonzero()[:, 0]
        assert seen.tolist() == list(range(last_seen + 1))


@torch.no_grad()
def test_padding_cannot_be_noticed() -> None:
    encoder = make_encoder()
    embedded = torch.randn(3, 13, 12)
    lengths = torch.tensor([13, 1, 6])
    together = encoder(embedded, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = encoder(embedded[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_codes", [3, 4, 17, 40])
@torch.no_grad()
def test_blocks_one_after_another_equal_one_pass(num_codes: int) -> None:
    encoder = make_encoder(block_size=4)
    embedded = torch.randn(2, num_codes, 12)
    cache, parts = encoder.new_cache(), []
    for block in embedded.split(4, dim=1):
        out, cache = encoder.forward_block(block, cache)
        parts.append(out)
    assert cache.num_codes == num_codes
    torch.testing.assert_close(torch.cat(parts, 1), encoder(embedded, lengths_of(embedded)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_block_encoded_on_a_copy_of_the_cache_leaves_it_alone() -> None:
    encoder = make_encoder(block_size=4)
    embedded = torch.randn(1, 8, 12)
    _, cache = encoder.forward_block(embedded[:, :4], encoder.new_cache())
    first, _ = encoder.forward_block(embedded[:, 4:6], cache.copy())
    again, cache = encoder.forward_block(embedded[:, 4:], cache)
    assert cache.num_codes == 8
    torch.testing.assert_close(again, encoder(embedded, lengths_of(embedded))[:, 4:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(first, again[:, :2])  # it saw only half of its block


@torch.no_grad()
def test_history_is_bounded_when_asked() -> None:
    encoder = make_encoder(block_size=4)
    embedded = torch.randn(1, 40, 12)
    cache = encoder.new_cache(max_history=8)
    for block in embedded.split(4, dim=1):
        out, cache = encoder.forward_block(block, cache)
    assert cache.num_codes == 8
    full = encoder(embedded, lengths_of(embedded))[:, -4:]
    assert not torch.allclose(out, full, atol=1e-5)
    torch.testing.assert_close(out, full, atol=0.5, rtol=0)


def test_sinusoids_do_not_depend_on_what_was_asked_before() -> None:
    fresh, used = make_encoder().sinusoids, make_encoder().sinusoids
    like = torch.zeros(1)
    used(3, -3, like)
    used(700, -5, like)
    assert torch.equal(used(600, -6, like), fresh(600, -6, like))
    assert used(2, -1, like).shape == (1, 4, 16)


def test_dropout_acts_in_training_only() -> None:
    encoder = make_encoder()
    embedded = torch.randn(1, 6, 12)
    lengths = lengths_of(embedded)
    assert torch.equal(encoder(embedded, lengths), encoder(embedded, lengths))
    encoder.train()
    assert not torch.equal(encoder(embedded, lengths), encoder(embedded, lengths))
