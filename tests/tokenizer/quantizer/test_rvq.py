"""The residual quantizer: what each codebook sees, gradients, training, k-means."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiollm.tokenizer.quantizer.rvq import ResidualQuantizer


@pytest.fixture
def quantizer() -> ResidualQuantizer:
    torch.manual_seed(0)
    made = ResidualQuantizer(3, 8, 4, ema_decay=0.9)
    for codebook in made.codebooks:
        torch.nn.init.normal_(codebook.weight)
        codebook.reset_statistics()
    return made.eval()


def naive_codes(quantizer: ResidualQuantizer, features: Tensor) -> Tensor:
    """The definition, in float64."""
    left, codes = features.double(), []
    for codebook in quantizer.codebooks:
        entries = codebook.weight.double()
        codes.append((left[..., None, :] - entries).square().sum(dim=-1).argmin(dim=-1))
        left = left - entries[codes[-1]]
    return torch.stack(codes, dim=1)


def test_each_codebook_quantizes_what_those_before_it_left(quantizer: ResidualQuantizer) -> None:
    features = torch.randn(2, 30, 4)
    codes = quantizer.encode(features)
    assert torch.equal(codes, naive_codes(quantizer, features))
    errors = [(features - quantizer.decode(codes[:, :count])).square().mean() for count in (1, 2, 3)]
    assert errors[2] < errors[0]
    torch.testing.assert_close(sum(quantizer.entries(codes)), quantizer.decode(codes))


def test_some_codebooks_begin_with_the_features_themselves(quantizer: ResidualQuantizer) -> None:
    features = torch.randn(2, 30, 4)
    assert torch.equal(quantizer.encode(features, count=2), quantizer.encode(features)[:, :2])
    later = quantizer.encode(features, start=1)
    assert torch.equal(later[:, 0], quantizer.codebooks[1].encode(features))
    assert torch.equal(quantizer.entries(later, start=1)[0], quantizer.codebooks[1].lookup(later[:, 0]))


@pytest.mark.parametrize("span", [{"start": 3}, {"start": -1}, {"count": 4}, {"count": 0}, {"start": 2, "count": 2}])
def test_codebooks_that_are_not_there_are_refused(quantizer: ResidualQuantizer, span: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="choose among 0 to 2"):
        quantizer.encode(torch.randn(1, 5, 4), **span)


@pytest.mark.parametrize("training", [False, True])
def test_forward_and_encode_agree(quantizer: ResidualQuantizer, training: bool) -> None:
    features = torch.randn(2, 30, 4)
    expected = quantizer.encode(features)
    entries = quantizer.decode(expected)
    output = quantizer.train(training)(features)
    assert torch.equal(output.codes, expected)
    torch.testing.assert_close(output.quantized, entries)


def test_the_gradient_passes_straight_through_once(quantizer: ResidualQuantizer) -> None:
    features, upstream = torch.randn(2, 9, 4, requires_grad=True), torch.randn(2, 9, 4)
    quantizer.train()(features).quantized.backward(upstream)
    torch.testing.assert_close(features.grad, upstream)


def test_training_moves_the_entries_of_every_codebook_and_the_loss_falls(quantizer: ResidualQuantizer) -> None:
    features = torch.randn(4, 50, 4)
    quantizer.train()
    losses = [float(quantizer(features).loss) for _ in range(40)]
    assert losses[-1] < losses[0]
    assert all(float(one) > 2 for one in quantizer(features).perplexities)


def test_masked_frames_teach_nothing(quantizer: ResidualQuantizer) -> None:
    features = torch.randn(2, 20, 4)
    mask = torch.ones(2, 20)
    mask[1, 12:] = 0
    changed = features.clone()
    changed[1, 12:] = 100
    quantizer.train()
    state = {name: one.clone() for name, one in quantizer.state_dict().items()}
    first = quantizer(features, mask).loss
    after = {name: one.clone() for name, one in quantizer.state_dict().items()}
    quantizer.load_state_dict(state)
    torch.testing.assert_close(quantizer(changed, mask).loss, first)
    for name, one in quantizer.state_dict().items():
        torch.testing.assert_close(one, after[name])


def test_k_means_covers_what_is_left_over(quantizer: ResidualQuantizer) -> None:
    features = torch.randn(300, 4)
    before = (features - quantizer.decode(quantizer.encode(features[None]))[0]).square().mean()
    fits = quantizer.fit(features)
    after = (features - quantizer.decode(quantizer.encode(features[None]))[0]).square().mean()
    assert after < before
    assert [fit.usage for fit in fits] == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="cannot fill a codebook"):
        quantizer.fit(features[:5])
