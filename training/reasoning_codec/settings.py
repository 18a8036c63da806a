"""Settings that a ReasoningCodec's first two stages have: its sizes, its frozen encoders, the text LLM, the rewards."""

from __future__ import annotations

from dataclasses import dataclass

from audiollm.training.loop.config import require_positive


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """A frozen encoder of a new codec."""

    source: str
    """An audio encoder of transformers, as folder or Hub id, or ``whisper-tiny.en`` or ``whisper-base`` from a package
    index."""

    layers: tuple[tuple[int, ...], ...] | None = None
    """For each of its streams the hidden states whose mean it is; 0 is what the first layer sees. None: those of the
    published codec."""


@dataclass(frozen=True, kw_only=True)
class EncodersSettings:
    """What a new codec hears by; all three are needed, as the last stage hears by the same."""

    whisper: EncoderSettings
    """Of speech, 50 vectors a second in one stream."""

    wavlm: EncoderSettings
    """Of speech, 50 vectors a second in one stream; the reasoning codes do not hear it."""

    music: EncoderSettings
    """Of all else, 25 vectors a second in two streams, of early layers and of late ones. Where it gives 50 a second,
    the mean of two is taken."""


@dataclass(frozen=True, kw_only=True)
class CodecSizes:
    """Sizes of a new codec's reasoning branch; the defaults are the published ones."""

    size: int = 768
    """Of the vectors that are quantized, also in the reconstruction."""

    query_interval: int = 5
    """Frames of 25 Hz of a reasoning code."""

    layers: int = 5
    """Transformer blocks."""

    head_size: int = 128
    """Of their attention."""

    inner_size: int = 3072
    """Of their inner layers."""

    quantizer: tuple[int, ...] = (8, 4096, 64)
    """Codebooks, entries of each, numbers of an entry."""

    def __post_init__(self) -> None:
        require_positive(self, "size", "query_interval", "layers", "head_size", "inner_size", prefix="sizes.")
