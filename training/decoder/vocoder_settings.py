"""Settings of the vocoder's training alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class VocoderSettings:
    """Settings of the vocoder's training alone."""

    segment_frames: int = 32
    """Mel frames of each segment that is cut out of a clip at random; an update has ``frames_per_update`` over this
    many of them."""

    pitch_method: Literal["dio", "harvest"] = "dio"
    """Estimator of the fundamental frequency. harvest takes some twenty times as long and finds more voiced frames."""

    min_pitch: float = 60.0
    """Lowest fundamental frequency that is looked for, in Hz."""

    max_pitch: float = 600.0
    """Highest fundamental frequency that is looked for, in Hz."""

    resolutions: tuple[int, ...] = (256, 512, 1024, 2048)
    """Window lengths of the spectrograms that are compared, in samples."""

    spectral_weight: float = 1.0
    """Weight of the distance of the spectrograms, in nats. All losses are means, so that the weights need not change
    with the number of resolutions or discriminators; at their defaults the discriminators give about a third of the
    gradient of the last layer."""

    convergence_weight: float = 0.0
    """Weight, within that distance, of the relative error of the linear magnitudes."""

    f0_weight: float = 0.01
    """Weight of the error of the predicted fundamental frequency, in Hz. Nothing else reaches its predictor, so this
    matters only to the gradient norm."""

    adversarial_weight: float = 1.0
    """Weight of the discriminators' verdict."""

    feature_weight: float = 2.0
    """Weight of the distance of the discriminators' features."""

    discriminator_start: int | None = 1
    """First update with discriminators. Without them an update takes a fraction of the time, and a fresh vocoder has
    little to learn from them. None: never."""

    discriminator_learning_rate: float | None = None
    """Peak learning rate of the discriminators. None: the vocoder's."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """Periods of the period discriminators, in samples."""

    period_channels: int = 32
    """Width of the first layer of each."""

    spectrogram_resolutions: tuple[int, ...] = (512, 1024, 2048)
    """Window lengths of the spectrogram discriminators, in samples."""

    spectrogram_channels: int = 32
    """Width of the layers of each."""

    def __post_init__(self) -> None:
        for name in ("segment_frames", "period_channels", "spectrogram_channels", "min_pitch"):
            if not getattr(self, name) > 0:
                raise ValueError(f"vocoder.{name}={getattr(self, name)}: use a positive number")
        if self.max_pitch <= self.min_pitch:
            raise ValueError(f"vocoder.max_pitch={self.max_pitch} must be above vocoder.min_pitch={self.min_pitch}")
        for name in ("spectral_weight", "convergence_weight", "f0_weight", "adversarial_weight", "feature_weight"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"vocoder.{name}={getattr(self, name)}: use zero or more")
        if not self.resolutions:
            raise ValueError("vocoder.resolutions is empty: name at least one window length, such as 1024")
        for name in ("resolutions", "spectrogram_resolutions"):
            for n_fft in getattr(self, name):
                if n_fft < 64 or n_fft % 4:
                    raise ValueError(f"vocoder.{name} has {n_fft}: use multiples of 4 from 64 on, such as 1024")
        if any(period < 1 for period in self.periods):
            raise ValueError(f"vocoder.periods={list(self.periods)}: use positive numbers")
        if self.discriminator_start is not None:
            if self.discriminator_start < 1:
                raise ValueError(f"vocoder.discriminator_start={self.discriminator_start}: updates count from 1")
            if not self.periods and not self.spectrogram_resolutions:
                raise ValueError(
                    "vocoder.periods and vocoder.spectrogram_resolutions are empty: name at least one discriminator, "
                    "or set vocoder.discriminator_start to null"
                )
        rate = self.discriminator_learning_rate
        if rate is not None and not (rate > 0 and math.isfinite(rate)):
            raise ValueError(f"vocoder.discriminator_learning_rate={rate}: use a positive number")
