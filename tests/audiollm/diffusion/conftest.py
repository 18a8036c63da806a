"""A tiny diffusion model with random weights, and the untrained LoSATok whose latents it makes."""

from __future__ import annotations

import pytest
import torch

from audiollm.diffusion import AudioGenerator, LatentDiffusion, LatentDiffusionConfig
from audiollm.diffusion.text import small_text_encoder
from audiollm.tokenizer.losatok.configuration import LoSATokConfig
from audiollm.tokenizer.losatok.model import LoSATok
from audiollm.tokenizer.losatok.semantic import SemanticEncoder
from audiollm.tokenizer.losatok.teacher.dasheng import DashengSizes, DashengTeacher

LATENT_SIZE = 6


def build_losatok(seed: int = 0) -> LoSATok:
    sizes = DashengSizes(size=16, num_layers=1, num_heads=2, mlp_size=16, num_mels=16, piece_tokens=20)
    config = LoSATokConfig(
        feature_size=16, bottleneck_size=12, latent_size=LATENT_SIZE, num_mels=16, decoder_size=16,
        decoder_intermediate_size=16, decoder_layers=1, n_fft=640,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LoSATok(config, SemanticEncoder(config.semantic, DashengTeacher(sizes))).eval()


def build_model(**settings) -> LatentDiffusion:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        encoder, tokenizer = small_text_encoder(8, 1, 2)
        config = LatentDiffusionConfig(
            latent_size=LATENT_SIZE, hidden_size=16, num_layers=2, num_heads=2, time_size=8, text_config=encoder.config,
            train_text_encoder=True, max_text_tokens=32, max_frames=50, steps=4, **settings,
        )  # fmt: skip
        model = LatentDiffusion(config, encoder, tokenizer)
        for parameter in model.parameters():  # a fresh one makes nothing but its mean
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


@pytest.fixture(scope="session")
def losatok() -> LoSATok:
    return build_losatok()


@pytest.fixture(scope="session")
def generator(losatok: LoSATok) -> AudioGenerator:
    """For all three tasks; of speech, two latents per character."""
    model = build_model(
        tasks=["text_to_speech", "text_to_audio"], frames_per_character=2.0,
        audio_tokenizer_fingerprint=losatok.fingerprint(), audio_tokenizer_kind="losatok",
    )  # fmt: skip
    return AudioGenerator(model, losatok)
