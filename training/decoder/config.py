"""Settings of a decoder's training run: one frozen dataclass for both models, read from YAML and flags."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig
from audiollm.tokenizer.decoder.flow.masking import Padding
from audiollm.training.loop.config import RunConfig, require_eval_data, require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class FlowTrainingSettings:
    """Settings of the flow model's training alone."""

    initialise_embedding: bool = True
    """Start the embedding of codes from the audio tokenizer's codebook (its main directions), if one is named: codes
    that sound alike start alike, and rare ones learn from their neighbours."""

    padding: Padding = "hidden"
    """How clips of different lengths share a batch. ``hidden``: each is trained as it will be decoded, whatever is
    beside it. ``reference``: as released decoders were trained, with padding in the statistics of the norms."""

    mean_weight: float = 0.0
    """Weight of the distance in nats between the true mel and what the codes say before the flow. Above 0 a small model
    learns in a fraction of the time; 0 is the published recipe, in which that is whatever helps the flow."""

    ema_decay: float = 0.999
    """Decay of the averaged weights, which the run ends with."""

    eval_steps: int | None = None
    """Steps of the sampler when held-out mel spectrograms are made. None: ``decoder.flow.steps``."""

    eval_vocoder: str | None = None
    """Vocoder that makes sound of them: a vocoder's training run, or a decoder. With it, evaluations also measure
    mel-cepstral distortion and, with ``eval_asr``, word error rate, and write waveforms and pictures. None: mels."""

    speaker_encoder: str | None = None
    """Speaker encoder, such as ``resemblyzer``, that describes every clip whose record has no ``speaker_vector``;
    ``decoder.flow.speaker_size`` must be the size of its vectors. None: zeros, the neutral voice."""

    def __post_init__(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"flow.ema_decay={self.ema_decay}: use a number in [0, 1), such as 0.999")
        require_not_negative(self, "mean_weight", prefix="flow.")
        if self.eval_steps is not None and self.eval_steps < 1:
            raise ValueError(f"flow.eval_steps={self.eval_steps}: use 1 or more, such as 10")


@dataclass(frozen=True, kw_only=True)
class VocoderTrainingSettings:
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

    # 1 and 2 as in HiFi-GAN (Kong et al., 2020); its 45 for the spectrogram is for sums over discriminators and layers.
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
        require_positive(
            self, "segment_frames", "period_channels", "spectrogram_channels", "min_pitch",
            "discriminator_learning_rate", prefix="vocoder.",
        )  # fmt: skip
        require_not_negative(
            self, "spectral_weight", "convergence_weight", "f0_weight", "adversarial_weight", "feature_weight",
            prefix="vocoder.",
        )  # fmt: skip
        if self.max_pitch <= self.min_pitch:
            raise ValueError(f"vocoder.max_pitch={self.max_pitch} must be above vocoder.min_pitch={self.min_pitch}")
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


@dataclass(frozen=True, kw_only=True)
class DecoderTrainingConfig(RunConfig):
    """One training run of a decoder's flow model or vocoder."""

    model: Literal["flow", "vocoder"]
    """What to train: ``flow`` (codes to mel) or ``vocoder`` (mel to waveform)."""

    train_data: str
    """Clips to train on: JSONL or parquet with ``audio`` and ``codes``, as ``audiollm tokenize`` writes them."""

    audio_tokenizer: str | None = None
    """Audio tokenizer (folder or Hub id) that encodes clips without codes, and whose codebook the flow model's
    embedding starts from."""

    cache_dir: str | None = None
    """Where prepared clips are kept; runs on the same data can share it. None: ``output_dir/prepared``."""

    decoder: WaveformDecoderConfig = field(default_factory=WaveformDecoderConfig)
    """Sizes of the decoder, mel spectrogram included."""

    start_from: str | None = None
    """Decoder whose weights and sizes to start from: a folder or a Hub id. None: random weights of size ``decoder``."""

    frames_per_update: int = 16_000
    """Most mel frames per update (86 are a second), padding included, over all processes."""

    frames_per_pass: int = 16_000
    """Most mel frames per process in one forward pass: changes memory and speed, not the update."""

    max_seconds: float = 10.0
    """Of longer clips another piece of this length is taken each time."""

    min_seconds: float = 0.2
    """Shorter clips are refused."""

    mono: Literal["first", "mean"] = "first"
    """Which waveform of several channels: the one that the codes were made from."""

    on_bad: Literal["error", "skip"] = "error"
    """What happens to clips that cannot be used. Either way they are listed."""

    min_learning_rate_ratio: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)

    eval_clips: int = 16
    """Held-out clips that are decoded at each evaluation; 0 for the loss alone."""

    eval_asr: str | None = None
    """Speech recognizer that reads the made clips at each evaluation: a folder, a Hub id, or ``whisper-tiny.en`` or
    ``whisper-base`` from a package index. None: no word error rate."""

    flow: FlowTrainingSettings = field(default_factory=FlowTrainingSettings)
    """Only with ``model: flow``."""

    vocoder: VocoderTrainingSettings = field(default_factory=VocoderTrainingSettings)
    """Only with ``model: vocoder``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "learning_rate", "frames_per_update", "frames_per_pass", "max_seconds")
        require_not_negative(self, "eval_clips", "min_seconds")
        require_eval_data(self, "flow.eval_vocoder")
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds={self.min_seconds} is above max_seconds={self.max_seconds}: swap them")
        if self.model == "vocoder" and self.optimizer == "muon":
            raise ValueError(
                "optimizer: muon is for the matrices of linear layers, and a vocoder is made of convolutions: use adamw"
            )
        if self.model == "flow" and self.decoder.flow.mean_prior is not None and not self.flow.mean_weight:
            raise ValueError(
                "decoder.flow.mean_prior needs flow.mean_weight above 0, such as 1: nothing else makes what the codes "
                "say a mel that the flow can start from"
            )
        self._refuse_the_other_models_settings()

    def _refuse_the_other_models_settings(self) -> None:
        other = "vocoder" if self.model == "flow" else "flow"
        settings = getattr(self, other)
        for entry in dataclasses.fields(settings):
            if getattr(settings, entry.name) != getattr(type(settings)(), entry.name):
                raise ValueError(f"{other}.{entry.name} has no effect with model: {self.model}; remove it")
