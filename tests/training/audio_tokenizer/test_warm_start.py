"""A tokenizer that was just made of Whisper, before and after its start is eased."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import WhisperConfig, WhisperModel

from audiollm.tokenizer.quantizer.lfq import VotingLFQ, unanimity
from audiollm.tokenizer.quantizer.usage import perplexity_of
from audiollm.tokenizer.supervision.model import SupervisedTokenizer
from audiollm.tokenizer.supervision.stabletoken import SupervisedStableToken
from audiollm.training.audio_tokenizer.warm_start import fit_norm, fit_voters, warm_start


def whisper() -> WhisperModel:
    config = WhisperConfig(
        vocab_size=40, num_mel_bins=80, d_model=32, encoder_layers=4, encoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64, max_target_positions=32, init_std=0.2,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    return WhisperModel(config)


def make_model(**settings: Any) -> SupervisedTokenizer:
    return SupervisedTokenizer.from_whisper(whisper(), quantize_position=2, codebook_size=8, **settings)


CLIPS = [0.1 * torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (8000, 12345, 20000)]


def features_of(model: SupervisedTokenizer) -> torch.Tensor:
    features = model.tokenizer.encode(CLIPS, 16000, return_features=True).features
    assert features is not None
    return torch.cat(features)


def test_an_eased_residual_hardly_changes_what_goes_in() -> None:
    plain = features_of(make_model(use_sae=False))
    model = make_model(sae_source_position=1)
    before = (features_of(model) - plain).square().mean()
    warm_start(model, CLIPS)
    after = (features_of(model) - plain).square().mean()
    assert after < 0.15 * plain.var(dim=0).mean()
    assert after < 0.2 * before


def test_an_eased_residual_can_still_learn() -> None:
    model = make_model(sae_source_position=1)
    warm_start(model, CLIPS)
    sae = model.tokenizer.sae
    assert sae is not None
    deep, shallow = torch.randn(2, 1, 9, 32)
    sae(deep, shallow)[0].square().sum().backward()
    gradient = sae.adapter[-1].weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_positions_are_scaled_and_nothing_else_without_a_residual() -> None:
    model = make_model(use_sae=False)
    before = copy.deepcopy(model.state_dict())
    warm_start(model, [], position_scale=0.25)
    for name, tensor in model.state_dict().items():
        scale = 0.25 if name == "tokenizer.code_positions.weight" else 1.0
        assert torch.equal(tensor, before[name] * scale if tensor.is_floating_point() else before[name]), name


def test_a_residual_needs_clips() -> None:
    with pytest.raises(ValueError, match="give some training clips"):
        warm_start(make_model(sae_source_position=1), [torch.zeros(0)])


def test_a_fitted_norm_is_the_best_affine_one() -> None:
    torch.manual_seed(1)
    features = torch.randn(200, 6) * torch.tensor([0.1, 1, 2, 3, 0.5, 1]) + torch.arange(6.0)
    norm = nn.LayerNorm(6)
    fit_norm(norm, features)
    error = (norm(features) - features).square().mean()
    error.backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.abs().max() < 1e-5
    assert norm.bias.grad is not None
    assert norm.bias.grad.abs().max() < 1e-5


def correlated(num_frames: int, seed: int = 0) -> torch.Tensor:
    """Features of which a few directions vary most, around a mean far from zero."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(32, 32, generator=random) * torch.logspace(1, -1, 32)[:, None]
    return torch.randn(num_frames, 32, generator=random) @ mix + 5


def test_bits_begin_evenly_and_codes_stand_for_the_features_they_come_from() -> None:
    features = correlated(2000)
    torch.manual_seed(0)
    voters = VotingLFQ(64, 32)
    random_codes = voters.encode(features)
    fit_voters(voters, features, seed=1)
    codes = voters.encode(features)
    ones = (voters.bits(codes) > 0).float().mean(dim=0)
    assert ((ones > 0.35) & (ones < 0.65)).all()
    counts, of_random = (torch.bincount(one, minlength=64).float() for one in (codes, random_codes))
    assert perplexity_of(counts) > 1.2 * perplexity_of(of_random)
    with torch.no_grad():
        error = (voters.lookup(codes) - features).square().mean()
    assert error < 0.6 * features.var(dim=0).mean()
    projections = voters.project(features)
    assert 0.5 < projections.detach().std() < 2  # as far from the border as the bits that they shall become
    assert not torch.equal(projections[0], projections[1])
    assert 0.5 < unanimity(projections).mean() < 1


def test_voters_can_be_fitted_where_there_are_more_bits_than_directions() -> None:
    features = correlated(300)[:, :4]
    voters = VotingLFQ(256, 4)
    fit_voters(voters, torch.cat([features, features[:1].expand(300, -1)]))
    assert all(weight.isfinite().all() for weight in voters.parameters())


def test_a_vote_begins_on_principal_components_and_needs_clips_for_it() -> None:
    torch.manual_seed(0)
    model = SupervisedStableToken.from_whisper(whisper(), quantize_position=2, codebook_size=32)
    positions = model.tokenizer.code_positions.weight.clone()
    warm_start(model, CLIPS, seed=3)
    torch.testing.assert_close(model.tokenizer.code_positions.weight, 0.1 * positions)
    assert model.tokenizer.encode(CLIPS, 16000)[0].unique().numel() > 4
    with pytest.raises(ValueError, match="no clips to fit the voters to"):
        warm_start(model, [])
