"""Sizes of the waveform decoder: the flow model (codes to mel), the vocoder (mel to waveform) and the mel between them.

Saved as ``config.json`` beside the weights. The defaults are the likely sizes of the released decoder (CosyVoice 1 at
25 codes per second); a checkpoint's own numbers are always the ones obeyed.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from audiollm.tokenizer.configuration import require_positive
from audiollm.tokenizer.signal.mel import MelConfig

MAX_LAYERS = 1024  # of any kind; more would be made one by one before their weights are found missing


def _require_few(config: object, *names: str) -> None:
    for name in names:
        count = getattr(config, name)
        if not isinstance(count, int) or not 0 <= count <= MAX_LAYERS:
            raise ValueError(f"{name}={count}: use a whole number up to {MAX_LAYERS}")


@dataclass(frozen=True, kw_only=True)
class TokenEncoderConfig:
    """The block-causal transformer over embedded codes (ESPnet relative positions, no convolution module)."""

    size: int = 512
    num_heads: int = 8
    feed_forward_size: int = 2048
    num_blocks: int = 6
    block_size: int = 10
    """Codes per block: a code sees everything up to the end of its own block."""
    dropout: float = 0.1
    positional_dropout: float = 0.1
    attention_dropout: float = 0.1

    def __post_init__(self) -> None:
        require_positive(self, "size", "num_heads", "feed_forward_size", "num_blocks", "block_size")
        _require_few(self, "num_blocks")
        if self.size % self.num_heads:
            raise ValueError(f"size={self.size} is not a multiple of num_heads={self.num_heads}")


@dataclass(frozen=True, kw_only=True)
class EstimatorConfig:
    """The 1-D U-Net that predicts the velocity of the flow."""

    channels: tuple[int, ...] = (256, 256)
    """Width of each stage on the way down; the way up mirrors it."""
    num_heads: int = 8
    head_dim: int = 64
    blocks_per_stage: int = 4
    """Transformer blocks per stage."""
    num_mid_stages: int = 12
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "num_heads", "head_dim")
        _require_few(self, "blocks_per_stage", "num_mid_stages")
        if not self.channels or any(width < 1 or width % 8 for width in self.channels):
            raise ValueError(f"channels={list(self.channels)}: every width must be a positive multiple of 8")


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """The flow model: embedding, token encoder, length regulator, conditional flow matching."""

    codebook_size: int = 8192
    frame_rate: float = 25.0
    """Codes per second, in Hz."""
    embedding_size: int = 512
    num_mels: int = 80
    speaker_size: int = 192
    """Length of a speaker vector."""
    encoder: TokenEncoderConfig = field(default_factory=TokenEncoderConfig)
    regulator_convolutions: int = 4
    """Convolutions of the length regulator, after the interpolation."""
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    mean_prior: float | None = None
    """Where the flow starts: None, at standard normal noise, as published; or at what the codes say, which training
    makes a rough mel, with noise of this standard deviation in nats. A small model then has little way to go."""
    sigma_min: float = 1e-6
    """Noise left at the end of the path."""
    cosine_schedule: bool = True
    """Whether time is warped by 1 - cos(pi t / 2), which takes smaller steps at the start."""
    training_guidance_dropout: float = 0.2
    """Probability of training an example without its condition."""
    guidance: float = 0.7
    """Strength of classifier-free guidance when decoding."""
    steps: int = 10
    """Euler steps when decoding."""

    @property
    def sway(self) -> float:
        """The schedule as `flow.solvers.sway` counts: -1 with the cosine, else 0."""
        return -1.0 if self.cosine_schedule else 0.0

    def __post_init__(self) -> None:
        require_positive(self, "codebook_size", "frame_rate", "embedding_size", "num_mels", "speaker_size", "steps")
        _require_few(self, "regulator_convolutions")
        if self.mean_prior is not None and not 0 <= self.mean_prior < math.inf:
            raise ValueError(f"mean_prior={self.mean_prior}: use a deviation of 0 or more, such as 0.3, or null")
        if not 0 <= self.training_guidance_dropout < 1:
            raise ValueError(f"training_guidance_dropout={self.training_guidance_dropout}: use a share in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    """HiFT: a harmonic-plus-noise source filtered by a network that ends in an inverse STFT."""

    num_mels: int = 80
    sample_rate: int = 22050
    """Hz."""
    base_channels: int = 512
    num_harmonics: int = 8
    """Overtones above the fundamental."""
    sine_amplitude: float = 0.1
    noise_amplitude: float = 0.003
    """Standard deviation of the noise in voiced samples."""
    voiced_threshold: float = 10.0
    """Hz; a fundamental below it counts as unvoiced."""
    upsample_rates: tuple[int, ...] = (8, 8)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16)
    istft_n_fft: int = 16
    istft_hop_length: int = 4
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    source_resblock_kernel_sizes: tuple[int, ...] = (7, 11)
    source_resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5))
    leaky_slope: float = 0.1
    amplitude_limit: float = 0.99
    f0_channels: int = 512

    def __post_init__(self) -> None:
        require_positive(self, "num_mels", "sample_rate", "base_channels", "istft_n_fft", "istft_hop_length")
        stages = len(self.upsample_rates)
        for name in ("upsample_kernel_sizes", "source_resblock_kernel_sizes", "source_resblock_dilations"):
            if len(getattr(self, name)) != stages:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {stages} upsample_rates")
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilations):
            raise ValueError(
                f"{len(self.resblock_kernel_sizes)} resblock_kernel_sizes but {len(self.resblock_dilations)} "
                "resblock_dilations; there must be one list of dilations per kernel size"
            )
        if self.base_channels % 2**stages:
            raise ValueError(f"base_channels={self.base_channels} cannot be halved {stages} times")

    @property
    def hop_length(self) -> int:
        """Samples per mel frame."""
        samples = self.istft_hop_length
        for rate in self.upsample_rates:
            samples *= rate
        return samples


@dataclass(frozen=True, kw_only=True)
class WaveformDecoderConfig:
    """Everything that rebuilds a waveform decoder."""

    flow: FlowConfig = field(default_factory=FlowConfig)
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    mel: MelConfig = field(default_factory=MelConfig)

    def __post_init__(self) -> None:
        sizes = {"flow.num_mels": self.flow.num_mels, "vocoder.num_mels": self.vocoder.num_mels}
        for name, size in sizes.items():
            if size != self.mel.num_mels:
                raise ValueError(f"{name}={size} but mel.num_mels={self.mel.num_mels}; they must agree")
        if self.vocoder.sample_rate != self.mel.sample_rate:
            raise ValueError(
                f"vocoder.sample_rate={self.vocoder.sample_rate} but mel.sample_rate={self.mel.sample_rate}"
            )
        if self.vocoder.hop_length != self.mel.hop_length:
            raise ValueError(
                f"the vocoder makes {self.vocoder.hop_length} samples per mel frame (upsample_rates times "
                f"istft_hop_length) but mel.hop_length={self.mel.hop_length}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns nested plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WaveformDecoderConfig:
        """Reads what `to_dict` wrote; missing keys take their defaults.

        Raises:
            ValueError: for an unknown key (named with its path) or a value that does not fit.
        """
        config = _from_dict(cls, values, "")
        assert isinstance(config, cls)
        return config


# Fields of this name hold a configuration of their own, at whatever depth.
_SECTIONS = {
    "flow": FlowConfig,
    "vocoder": VocoderConfig,
    "mel": MelConfig,
    "encoder": TokenEncoderConfig,
    "estimator": EstimatorConfig,
}


def _from_dict(cls: type, values: dict[str, Any], path: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{path or 'decoder config'} must be a mapping, not {values!r}")
    known = {entry.name for entry in dataclasses.fields(cls)}
    for key in values:
        if key not in known:
            raise ValueError(f"decoder config: unknown key {path}{key}; known are {', '.join(sorted(known))}")
    built = {
        key: _from_dict(_SECTIONS[key], value, f"{path}{key}.") if key in _SECTIONS else _as_tuple(value)
        for key, value in values.items()
    }
    return cls(**built)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(entry) for entry in value) if isinstance(value, list | tuple) else value
