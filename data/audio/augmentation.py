"""Degrades training clips at random, so that codes learn to stay the same."""
# Shapes: N samples.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .degradation import CODECS, Codec, NoiseColour, coloured_noise, crush, mix_at_snr, reverberate, transmit

DIRECT_TO_REVERBERANT_DB = (0.0, 12.0)  # from the far end of a room to a close microphone
NOISE_OF_WAY: dict[str, NoiseColour] = {"white_snr_db": "white", "pink_snr_db": "pink", "brown_snr_db": "brown"}


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Which clips are degraded, and how. The levels of noise and bit depth are StableToken's (Song et al., 2025,
    arXiv:2509.22220)."""

    probability: float = 0.0
    """Share of clips that are degraded, each in one way drawn evenly among those below. StableToken: 0.4."""

    white_snr_db: tuple[float, float] | None = (16.0, 30.0)
    """Level of the clip above white noise, drawn from this range in dB. None, here and below: not this way."""

    pink_snr_db: tuple[float, float] | None = (16.0, 24.0)
    """The same of pink noise (power density 1/f)."""

    brown_snr_db: tuple[float, float] | None = (12.0, 24.0)
    """The same of brown noise (1/f²)."""

    clip_snr_db: tuple[float, float] | None = None
    """The same of another training clip that is a sound or music, such as (12, 24). What is learned stays the clip's
    own text: it does not speak of the sound in the background."""

    bit_depth: tuple[int, int] | None = (8, 14)
    """Bits per sample."""

    reverberation_seconds: tuple[float, float] | None = (0.1, 0.6)
    """Time in which a room's sound falls by 60 dB."""

    codecs: tuple[Codec, ...] = ("g711", "gsm", "vorbis", "mp3")
    """Codecs, one of which a clip passes through: g711, gsm, vorbis, mp3, opus (which takes four times as long)."""

    gain_db: tuple[float, float] | None = (-10.0, 6.0)
    """Change of level that all degraded clips get on top."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"augmentation.probability={self.probability}: use a share between 0 and 1, such as 0.4")
        for name in ("white_snr_db", "pink_snr_db", "brown_snr_db", "clip_snr_db", "gain_db"):
            _check_range(name, getattr(self, name), -100.0, 100.0)
        _check_range("bit_depth", self.bit_depth, 2, 24)
        _check_range("reverberation_seconds", self.reverberation_seconds, 0.01, 10.0)
        unknown = [codec for codec in self.codecs if codec not in CODECS]
        if unknown:
            raise ValueError(f"augmentation.codecs: {unknown[0]!r} is unknown; choose among {', '.join(CODECS)}")
        if self.probability and not self.ways:
            raise ValueError("augmentation.probability is above 0, but there is no way to degrade clips; give one")

    @property
    def ways(self) -> tuple[str, ...]:
        """Names of the ways that are not None."""
        ways = ("white_snr_db", "pink_snr_db", "brown_snr_db", "clip_snr_db", "bit_depth", "reverberation_seconds")
        return tuple(name for name in (*ways, "codecs") if getattr(self, name))


def augment(
    waveform: Tensor,
    sample_rate: int,
    config: AugmentationConfig,
    generator: np.random.Generator,
    other: Callable[[np.random.Generator], Tensor] | None = None,
) -> Tensor:
    """Degrades a clip, or leaves it alone; the generator's state decides, and nothing else.

    Args:
        waveform: float32 ``[N]``, N >= 1; not changed.
        sample_rate: Hz.
        config: how.
        generator: seeded by what the clip's fate may depend on, such as seed, epoch and id.
        other: draws a clip to put in the background; needed with ``config.clip_snr_db``.

    Returns:
        float32 ``[N]`` in step with the clip; peaks may exceed 1.

    Raises:
        ValueError: if ``other`` is missing.
    """
    if generator.random() >= config.probability:
        return waveform
    way = str(generator.choice(config.ways))
    degraded = _degrade(waveform, sample_rate, config, way, generator, other)
    if config.gain_db is not None:
        # Drawn last: a clip without a change of level meets the same noise, room or codec.
        degraded = degraded * 10 ** (generator.uniform(*config.gain_db) / 20)
    return degraded


def _degrade(
    waveform: Tensor,
    sample_rate: int,
    config: AugmentationConfig,
    way: str,
    generator: np.random.Generator,
    other: Callable[[np.random.Generator], Tensor] | None,
) -> Tensor:
    if way == "codecs":
        return transmit(waveform, sample_rate, config.codecs[generator.integers(len(config.codecs))])
    low, high = getattr(config, way)
    if way == "bit_depth":
        return crush(waveform, int(generator.integers(low, high, endpoint=True)))
    amount = generator.uniform(low, high)
    if way == "reverberation_seconds":
        ratio = generator.uniform(*DIRECT_TO_REVERBERANT_DB)
        return reverberate(
            waveform, sample_rate, decay_seconds=amount, direct_to_reverberant_db=ratio, generator=generator
        )
    if way == "clip_snr_db":
        if other is None:
            raise ValueError("augmentation.clip_snr_db needs clips to put in the background; pass other=")
        return mix_at_snr(waveform, other(generator), amount)
    noise = coloured_noise(len(waveform), sample_rate, NOISE_OF_WAY[way], generator)
    return mix_at_snr(waveform, noise, amount)


def _check_range(name: str, value: tuple[float, float] | None, least: float, most: float) -> None:
    if value is None:
        return
    if not (len(value) == 2 and least <= value[0] <= value[1] <= most):
        raise ValueError(
            f"augmentation.{name}={value}: use two numbers, the lower first, between {least:g} and {most:g}"
        )
