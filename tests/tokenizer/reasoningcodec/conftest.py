"""A tiny ReasoningCodec that hears by tiny encoders of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from audiollm.tokenizer.reasoningcodec.configuration import ReasoningCodecConfig
from audiollm.tokenizer.reasoningcodec.encoders import (
    MUSIC,
    WAVLM,
    WAVLM_LAYERS,
    WAVLM_SILENCE,
    WHISPER,
    FrozenEncoder,
    TransformersEncoder,
)
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.tokenizer.zoo.sqcodec.configuration import SQCodecConfig
from audiollm.tokenizer.zoo.sqcodec.model import SQCodec

SIZES: dict[str, Any] = {
    "size": 64, "whisper_size": 16, "wavlm_size": 16, "music_size": 16, "latent_size": 6, "reasoning_layers": 1,
    "reasoning_head_size": 32, "reasoning_inner_size": 32, "reasoning_quantizer": (2, 32, 8),
    "phone_quantizer": (1, 32, 8), "structure_quantizer": (1, 32, 8), "acoustic_quantizer": (2, 32, 8),
    "dit_layers": 1, "dit_heads": 2, "dit_head_size": 8, "dit_inner_size": 16, "dit_positions": 800,
    "dit_time_size": 8,
}  # fmt: skip
RATE = 24000


def whisper() -> FrozenEncoder:
    """Of 8 s in place of 30."""
    config = WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=8, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        decoder_start_token_id=1, init_std=0.2, max_source_positions=400,
    )  # fmt: skip
    return TransformersEncoder(WhisperModel(config).eval(), WhisperFeatureExtractor(feature_size=80, chunk_length=8))


def speech_sizes(num_layers: int) -> dict[str, Any]:
    return {
        "hidden_size": 16, "num_hidden_layers": num_layers, "num_attention_heads": 2, "intermediate_size": 16,
        "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
    }  # fmt: skip


def wavlm() -> FrozenEncoder:
    model = WavLMModel(WavLMConfig(**speech_sizes(9), num_buckets=8, max_bucket_distance=16)).eval()
    return TransformersEncoder(model, None, (WAVLM_LAYERS,), silence=WAVLM_SILENCE)


def music(**options: Any) -> FrozenEncoder:
    model = HubertModel(HubertConfig(**speech_sizes(3))).eval()
    return TransformersEncoder(model, Wav2Vec2FeatureExtractor(), ((1,), (3,)), **{"pool": 2, **options})


def sqcodec(**changes: Any) -> SQCodec:
    sizes: dict[str, Any] = {
        "sample_rate": RATE, "num_samples": 2, "downsample_factors": (8, 10, 6),
        "downsample_kernel_sizes": (16, 20, 12), "upsample_factors": (6, 10, 8), "upsample_kernel_sizes": (12, 20, 16),
        "latent_hidden_dim": 6, "init_channel": 2,
    }  # fmt: skip
    return SQCodec(SQCodecConfig(**{**sizes, **changes}))


def make(**changes: Any) -> ReasoningCodec:
    """Whose codes vary: its entries lie among the features of noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        encoders = {WHISPER: whisper(), WAVLM: wavlm(), MUSIC: music()}
        codec = ReasoningCodec(ReasoningCodecConfig(**{**SIZES, **changes}), encoders, sqcodec()).eval()
        fit(codec, 0.3 * torch.randn(2, 4 * RATE) * torch.linspace(0, 1, 4 * RATE))
        assert codec.flow is not None
        codec.flow.condition.weight.data *= 20
    return codec


@torch.no_grad()
def fit(codec: ReasoningCodec, waveforms: Tensor) -> None:
    """Puts entries among the features of waveforms."""
    heard = codec.hear(waveforms)
    quantizers = [(codec.reasoning.quantizer, codec.reasoning(heard.whisper, heard.semantic))]
    features = codec.reconstruction.features(heard)
    quantizers += [(codec.reconstruction.quantizer(name), one) for name, one in features.items()]
    for quantizer, one in quantizers:
        quantizer.project_in.weight *= 4
        quantizer.residual.fit(quantizer.project(one).flatten(0, 1))


@pytest.fixture(scope="session")
def shared() -> ReasoningCodec:
    """One for all tests that change nothing."""
    return make()


@pytest.fixture
def codec(shared: ReasoningCodec) -> Iterator[ReasoningCodec]:
    before = shared.config
    yield shared
    assert shared.config == before


@pytest.fixture
def make_codec() -> Callable[..., ReasoningCodec]:
    return make
