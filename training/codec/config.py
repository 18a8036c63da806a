"""Settings of a codec's training run: one frozen dataclass, read from YAML and flags."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

from audiollm.tokenizer.zoo.sqcodec.configuration import SQCodecConfig
from audiollm.tokenizer.zoo.wavtokenizer.configuration import WavTokenizerConfig
from audiollm.training.loop.config import RunConfig, require_not_negative, require_positive

_HARDLY_USED = 0.25  # of the average count
_OF_CODEBOOKS = ("quantize_from", "fit_segments", "codebook_decay", "restart_interval", "commitment_weight")
"""Settings that an SQCodec, which has no entries, has no use for."""


@dataclass(frozen=True, kw_only=True)
class AdversarySettings:
    """Discriminators, against which the sound becomes clear where distances of spectrograms are content with a blur.

    Those of DAC that look at bands of spectrograms (Kumar et al., 2023, arXiv:2306.06546).
    """

    start: int | None = None
    """First update with discriminators, without which updates take a fraction of the time. None: never."""

    adversarial_weight: float = 1.0
    """Weight of their verdict."""

    feature_weight: float = 2.0
    """Weight of the distance of their features."""

    learning_rate: float | None = None
    """Their peak learning rate. None: the tokenizer's."""

    windows: tuple[int, ...] = (2048, 1024, 512)
    """Window lengths of the spectrograms that they look at, in samples."""

    channels: int = 32
    """Width of their layers."""

    def __post_init__(self) -> None:
        require_positive(self, "start", "learning_rate", "channels", prefix="adversary.")
        require_not_negative(self, "adversarial_weight", "feature_weight", prefix="adversary.")
        _check_windows("adversary.windows", self.windows)
        if self.start is None:
            for entry in dataclasses.fields(self):
                if getattr(self, entry.name) != entry.default:
                    raise ValueError(f"adversary.{entry.name} has no effect without adversary.start; remove it")


@dataclass(frozen=True, kw_only=True)
class CodecTrainingConfig(RunConfig):
    """One training run of an audio tokenizer of waveforms, which learns to give back what it was given."""

    tokenizer: WavTokenizerConfig | SQCodecConfig
    """Sizes of a WavTokenizer, or of an SQCodec: by their names it is known which of the two is trained."""

    train_data: str
    """Recordings to train on: JSONL or parquet with ``audio``, or a folder of audio files. Nothing else is read."""

    mono: Literal["first", "mean"] = "mean"
    """Which waveform of several channels."""

    min_seconds: float = 0.0
    """Shorter recordings are refused, and empty ones in any case."""

    on_bad: Literal["error", "skip"] = "error"
    """What happens to recordings that cannot be used. Either way they are listed."""

    cache_megabytes: int = 2048
    """Memory for decoded recordings; what has no room is decoded each time."""

    segment_seconds: float = 1.0
    """Length of each segment that is cut out of a recording at random."""

    segments_per_update: int = 16
    """Over all processes."""

    segments_per_pass: int = 16
    """Most segments per process in one forward pass: changes memory and speed, not the update."""

    quantize_from: int = 200
    """Of a WavTokenizer: first update with codes. Until then features pass as they are; then k-means places the entries
    among them."""

    fit_segments: int = 128
    """Of a WavTokenizer: segments whose frames k-means sees."""

    codebook_decay: float = 0.99
    """Of a WavTokenizer: decay of the moving averages of the codebook's entries."""

    restart_interval: int | None = None
    """Of a WavTokenizer: updates between restarts of entries that are hardly used: that lie below the count which an
    unused one has after as many. None: so many that this is a quarter of the average, or less."""

    commitment_weight: float = 0.25
    """Of a WavTokenizer: weight of the squared distance between features and entries."""

    resolutions: tuple[int, ...] = (256, 512, 1024, 2048)
    """Window lengths of the mel spectrograms that are compared, in samples."""

    spectral_weight: float = 1.0
    """Weight of their distance, in nats per mel band."""

    convergence_weight: float = 0.0
    """Weight, within that distance, of the relative error of the linear magnitudes."""

    waveform_weight: float = 0.0
    """Weight of the absolute distance of the waveforms, which fixes their phase."""

    adversary: AdversarySettings = field(default_factory=AdversarySettings)
    """Discriminators. By default there are none."""

    eval_clips: int = 16
    """Held-out recordings that are given back at each evaluation, their first ``eval_seconds``."""

    eval_seconds: float = 10.0

    collapse_alarm: float = 0.05
    """Evaluations raise an alarm when the perplexity of their codes is below this share of what it could be; of an
    SQCodec, when that of half the numbers of a latent is. It stops nothing."""

    min_learning_rate_ratio: float = 0.05
    betas: tuple[float, float] = (0.8, 0.99)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(
            self, "learning_rate", "segment_seconds", "segments_per_update", "segments_per_pass", "quantize_from",
            "fit_segments", "restart_interval", "cache_megabytes", "eval_clips", "eval_seconds",
        )  # fmt: skip
        require_not_negative(
            self, "min_seconds", "collapse_alarm", "commitment_weight", "spectral_weight", "convergence_weight",
            "waveform_weight",
        )  # fmt: skip
        if self.tokenizer.encoder_only:
            raise ValueError("tokenizer.encoder_only: true leaves nothing to learn from; remove it")
        if self.optimizer == "muon":
            raise ValueError("optimizer: muon is for matrices of linear layers, and this is convolutions: use adamw")
        _check_windows("resolutions", self.resolutions)
        windows = [*self.resolutions, *(self.adversary.windows if self.adversary.start is not None else ())]
        if self.segment_frames * self.frame_samples <= max(windows) // 2:
            raise ValueError(
                f"segment_seconds={self.segment_seconds} is too short for a window of {max(windows)} samples; raise "
                "it, or lower resolutions and adversary.windows"
            )
        if isinstance(self.tokenizer, SQCodecConfig):
            self._refuse_settings_of_codebooks()
        else:
            self._check_codebooks(self.tokenizer)

    def _refuse_settings_of_codebooks(self) -> None:
        for name in _OF_CODEBOOKS:
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(
                    f"{name} has no effect on an SQCodec, whose numbers are rounded from the first update on; remove it"
                )

    def _check_codebooks(self, sizes: WavTokenizerConfig) -> None:
        if not 0 < self.codebook_decay < 1:
            raise ValueError(f"codebook_decay={self.codebook_decay}: use a number between 0 and 1, such as 0.99")
        self._check_restarts()
        if self.fit_segments * self.segment_frames < sizes.codebook_size:
            raise ValueError(
                f"fit_segments={self.fit_segments} of {self.segment_frames} frames cannot fill a codebook of "
                f"{sizes.codebook_size} entries: raise it"
            )

    def _check_restarts(self) -> None:
        interval = self.restart_interval
        if interval is not None and self.codebook_decay**interval >= self._average_count:
            raise ValueError(
                f"restart_interval={interval}: an update shows an entry {self._average_count:.2g} times on average, "
                f"and below {self.codebook_decay**interval:.2g} it would count as unused, so that all are restarted "
                f"again and again; raise it, such as to {self._least_interval()}, or leave it out"
            )

    @property
    def _average_count(self) -> float:
        """How often an update shows an entry, on average; no more than what a new entry is counted as."""
        assert isinstance(self.tokenizer, WavTokenizerConfig)
        return min(1.0, self.segments_per_update * self.segment_frames / self.tokenizer.codebook_size)

    def _least_interval(self) -> int:
        return math.ceil(math.log(self._average_count * _HARDLY_USED) / math.log(self.codebook_decay))

    @property
    def restarts_every(self) -> int:
        """Updates between restarts."""
        return self._least_interval() if self.restart_interval is None else self.restart_interval

    @property
    def frame_samples(self) -> int:
        """Samples of a frame."""
        sizes = self.tokenizer
        return sizes.frame_samples if isinstance(sizes, SQCodecConfig) else sizes.hop_length

    @property
    def segment_frames(self) -> int:
        """Frames of a segment."""
        return max(1, round(self.segment_seconds * self.tokenizer.sample_rate / self.frame_samples))


def _check_windows(name: str, windows: tuple[int, ...]) -> None:
    if not windows:
        raise ValueError(f"{name} is empty: give lengths in samples, such as 1024")
    for n_fft in windows:
        if n_fft < 64 or n_fft % 4:
            raise ValueError(f"{name} has {n_fft}: use multiples of 4 from 64 on, such as 1024")
