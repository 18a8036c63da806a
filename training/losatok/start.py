"""What each stage is made of: a frozen teacher with a fresh bottleneck, or a trained semantic side with all else."""

from __future__ import annotations

from audiollm.data.pretrained.whisper import whisper_from_package
from audiollm.tokenizer.losatok.configuration import LoSATokConfig, SemanticConfig
from audiollm.tokenizer.losatok.model import LoSATok
from audiollm.tokenizer.losatok.opening import load_semantic, load_teacher
from audiollm.tokenizer.losatok.semantic import SemanticEncoder
from audiollm.tokenizer.losatok.teacher.base import Teacher
from audiollm.training.audio_tokenizer.start import WHISPER_PACKAGES

from .config import STAGE_ONE, LoSATokTrainingConfig


def open_teacher(source: str) -> Teacher:
    """The frozen encoder that ``semantic.teacher`` names: as `load_teacher`, or a Whisper of a package index.

    Raises:
        ValueError: if there is none.
    """
    if source in WHISPER_PACKAGES:
        source = str(whisper_from_package(source.removeprefix("whisper-")))
    return load_teacher(source)


def make_semantic(config: LoSATokTrainingConfig) -> SemanticEncoder:
    """The frozen teacher, and a bottleneck with random weights.

    Raises:
        ValueError: if there is no such teacher.
    """
    settings = config.semantic
    assert settings.teacher is not None  # the config has checked
    teacher = open_teacher(settings.teacher)
    sizes = SemanticConfig(
        feature_size=teacher.feature_size,
        bottleneck_size=settings.bottleneck_size,
        latent_size=settings.latent_size,
    )
    return SemanticEncoder(sizes, teacher)


def make_tokenizer(config: LoSATokTrainingConfig) -> LoSATok:
    """The frozen semantic side, and all else with random weights.

    Raises:
        ValueError: if there is no semantic side where it should be.
    """
    settings = config.tokenizer
    assert settings.semantic is not None  # the config has checked
    try:
        semantic = load_semantic(settings.semantic).requires_grad_(False)
    except ValueError as error:
        raise ValueError(f"tokenizer.semantic: {error}. The first stage makes it:\n  {STAGE_ONE}") from error
    sizes = LoSATokConfig(
        feature_size=semantic.config.feature_size,
        bottleneck_size=semantic.config.bottleneck_size,
        latent_size=semantic.config.latent_size,
        num_mels=settings.num_mels,
        decoder_size=settings.decoder_size,
        decoder_intermediate_size=settings.decoder_intermediate_size,
        decoder_layers=settings.decoder_layers,
        n_fft=settings.n_fft,
        upsampling=settings.upsampling,
    )
    return LoSATok(sizes, semantic)
