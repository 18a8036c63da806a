"""The codec that a stage starts from: what the stage before has left, or a new one around frozen encoders."""

from __future__ import annotations

from pathlib import Path

from audiollm.data.pretrained.whisper import whisper_from_package
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.reasoningcodec.configuration import REASONING, ReasoningCodecConfig
from audiollm.tokenizer.reasoningcodec.encoders import MUSIC, ROLES, WAVLM, WHISPER, FrozenEncoder, load_encoder
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.training.audio_tokenizer.start import WHISPER_PACKAGES

from .config import ReasoningCodecTrainingConfig
from .settings import CodecSizes, EncodersSettings
from .stages import FIRST_STAGE, check_order


def open_codec(config: ReasoningCodecTrainingConfig) -> ReasoningCodec:
    """The codec that a stage starts from, the same on every process.

    Raises:
        ValueError: if there is none, it is not this stage's turn, or a frozen encoder is missing or of another rate.
    """
    if config.codec is None:
        assert config.encoders is not None  # the config has checked
        return make_codec(config.encoders, config.sizes)
    codec = _opened(config.codec)
    check_order(config.stage, codec.config.trained_stage, config.codec)
    codec.require_encoders()
    return codec


def _opened(source: str) -> ReasoningCodec:
    try:
        codec = AudioTokenizer.from_pretrained(source)
    except (ValueError, OSError) as error:
        raise ValueError(f"codec: {error}. The first stage makes one:\n  {FIRST_STAGE}") from error
    if not isinstance(codec, ReasoningCodec):
        raise ValueError(f"codec: {source} is a {type(codec).__name__}; give a ReasoningCodec")
    return codec


def make_codec(encoders: EncodersSettings, sizes: CodecSizes) -> ReasoningCodec:
    """A new codec of reasoning codes alone: the last stage makes its decoder.

    Raises:
        ValueError: if an encoder is not there, or of another rate.
    """
    loaded = {role: open_encoder(role, encoders) for role in ROLES}
    config = ReasoningCodecConfig(
        size=sizes.size,
        whisper_size=loaded[WHISPER].feature_size,
        wavlm_size=loaded[WAVLM].feature_size,
        music_size=loaded[MUSIC].feature_size,
        query_interval=sizes.query_interval,
        reasoning_layers=sizes.layers,
        reasoning_head_size=sizes.head_size,
        reasoning_inner_size=sizes.inner_size,
        reasoning_quantizer=sizes.quantizer,
        group=REASONING,
        encoder_only=True,
    )
    return ReasoningCodec(config, loaded)


def open_encoder(role: str, encoders: EncodersSettings) -> FrozenEncoder:
    """One of the frozen encoders that ``encoders`` names.

    Raises:
        ValueError: if there is none.
    """
    settings = getattr(encoders, role)
    source: str | Path = settings.source
    if settings.source in WHISPER_PACKAGES:
        source = whisper_from_package(settings.source.removeprefix("whisper-"))
    return load_encoder(role, source, settings.layers)
