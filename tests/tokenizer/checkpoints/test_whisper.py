"""A tokenizer started from Whisper holds Whisper's encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperModel
from transformers.models.whisper.modeling_whisper import sinusoids

from audiollm.tokenizer import UniAudioTokenizer


@pytest.fixture
def whisper() -> WhisperModel:
    torch.manual_seed(3)
    config = WhisperConfig(
        d_model=16,
        encoder_layers=4,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=16,
        vocab_size=40,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        max_source_positions=60,
        init_std=0.2,
    )
    return WhisperModel(config).eval()


def test_without_pooling_and_sae_the_layers_compute_what_whisper_computes(whisper: WhisperModel) -> None:
    tokenizer = UniAudioTokenizer.from_whisper(
        whisper, quantize_position=4, codebook_size=8, pooling_kernel_size=None, use_sae=False
    )
    features = torch.randn(2, 80, 120)
    with torch.no_grad():
        hidden = tokenizer.encoder.layer_norm(tokenizer.pre_quantizer_features(features))
        expected = whisper.encoder(features).last_hidden_state
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)


def test_folder_and_model_and_full_model_give_the_same(whisper: WhisperModel, tmp_path: Path) -> None:
    full = WhisperForConditionalGeneration(whisper.config)
    full.model.load_state_dict(whisper.state_dict())
    full.save_pretrained(tmp_path)
    settings: dict[str, Any] = {"quantize_position": 2, "codebook_size": 8}
    fingerprints = {
        UniAudioTokenizer.from_whisper(source, **settings).fingerprint() for source in (whisper, full, tmp_path)
    }
    assert len(fingerprints) == 1


def test_new_parts_are_ready_for_training(whisper: WhisperModel) -> None:
    before = torch.random.get_rng_state()
    tokenizer = UniAudioTokenizer.from_whisper(whisper, quantize_position=3, codebook_size=8, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert tokenizer.sae_is_active
    assert tokenizer.config.encoder_residual_source_position == 2
    assert torch.equal(tokenizer.code_positions.weight, sinusoids(30, 16))
    codebook = tokenizer.codebook
    assert torch.equal(codebook.ema_weight, codebook.weight)
    assert torch.equal(codebook.ema_count, torch.ones(8))
    with torch.no_grad():
        gate = tokenizer(torch.randn(1, 80, 40)).gate_mean
    assert float(gate) == pytest.approx(0.5, abs=0.2)
    other = UniAudioTokenizer.from_whisper(whisper, quantize_position=3, codebook_size=8, seed=2)
    assert not torch.equal(other.codebook.weight, codebook.weight)
    assert "Whisper" in tokenizer.licence_note


def test_settings_reach_the_model(whisper: WhisperModel) -> None:
    tokenizer = UniAudioTokenizer.from_whisper(
        whisper,
        quantize_position=3,
        codebook_size=8,
        pooling_kernel_size=4,
        pooling_type="max",
        pooling_position=3,
        sae_source_position=1,
        use_gate=False,
        ema_decay=None,
        encoder_only=True,
        quantize_causal_block_size=20,
    )
    assert tokenizer.frame_rate == 12.5
    assert len(tokenizer.encoder.layers) == 3
    assert tokenizer.encoder.layer_norm is None
    assert tokenizer.codebook.weight.requires_grad
    assert tokenizer.config.quantize_causal_block_size == 20
    assert float(tokenizer(torch.randn(1, 80, 40)).gate_mean) == 1.0


def test_whatever_is_not_whisper_is_refused(whisper: WhisperModel) -> None:
    with pytest.raises(ValueError, match="Linear is not a Whisper model"):
        UniAudioTokenizer.from_whisper(nn.Linear(2, 2), quantize_position=2)
    with pytest.raises(ValueError, match="quantize_position=9: the encoder has 4 layers"):
        UniAudioTokenizer.from_whisper(whisper, quantize_position=9)
