"""A tokenizer that was just made of Whisper, before and after its start is eased."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import WhisperConfig, WhisperModel

from audiollm.tokenizer.supervision.model import SupervisedTokenizer
from audiollm.training.audio_tokenizer.warm_start import fit_norm, warm_start


def make_model(**settings: Any) -> SupervisedTokenizer:
    config = WhisperConfig(
        vocab_size=40, num_mel_bins=80, d_model=32, encoder_layers=4, encoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64, max_target_positions=32, init_std=0.2,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    return SupervisedTokenizer.from_whisper(WhisperModel(config), quantize_position=2, codebook_size=8, **settings)


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
