"""Settings of either stage of a LoSATok's training: one frozen dataclass, read from YAML and flags."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from audiollm.tokenizer.losatok.losses import AlignmentMode
from audiollm.training.loop.config import RunConfig, require_not_negative, require_positive

STAGE_ONE = "audiollm train-losatok --stage semantic --semantic.teacher TEACHER --train_data … --output_dir SEMANTIC"
OF_DISCRIMINATORS = (
    "adversarial_weight", "feature_weight", "discriminator_learning_rate", "discriminator_windows",
    "discriminator_channels",
)  # fmt: skip
"""Settings of the second stage that are nothing without discriminators."""


@dataclass(frozen=True, kw_only=True)
class SemanticStageSettings:
    """Settings of the first stage alone: SemBo, a bottleneck for the features of a frozen teacher."""

    teacher: str | None = None
    """The frozen encoder: a released LoSATok or ``semantic_encoder.pth``, one of our own tokenizers (or ``mini``), an
    audio encoder of transformers, as folder or Hub id, or ``whisper-tiny.en`` or ``whisper-base`` from a package
    index."""

    bottleneck_size: int = 512
    """Of the layer between the teacher's features and the latents."""

    latent_size: int = 128
    """Of the latents."""

    reconstruction_weight: float = 1000.0
    """Weight of the distance between restored and true features."""

    relation_weight: float = 1.0
    """Weight of the time-relation loss, which keeps which moments resemble which. 0 leaves it out."""

    def __post_init__(self) -> None:
        require_positive(self, "bottleneck_size", "latent_size", prefix="semantic.")
        require_not_negative(self, "reconstruction_weight", "relation_weight", prefix="semantic.")
        if not self.reconstruction_weight and not self.relation_weight:
            raise ValueError(
                "semantic.reconstruction_weight and semantic.relation_weight are both 0: nothing is learnt"
            )


@dataclass(frozen=True, kw_only=True)
class TokenizerStageSettings:
    """Settings of the second stage alone: acoustic encoder, fusion and decoder around the frozen semantic side."""

    semantic: str | None = None
    """What the first stage left: its run, a released ``semantic_encoder.pth``'s folder, or a whole LoSATok."""

    decoder_size: int = 1280
    """Channels of the decoder."""

    decoder_intermediate_size: int = 5120
    """Of the inner layers of its blocks."""

    decoder_layers: int = 12
    """Its blocks."""

    num_mels: int = 128
    """Mel bins of the acoustic encoder's patches."""

    n_fft: int = 1280
    """Window of the decoder's inverse transform, in samples."""

    upsampling: int = 2
    """Frames of the decoder for each token."""

    mel_weight: float = 45.0
    """Weight of the distance of the log-mels, summed over resolutions."""

    mel_windows: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048)
    """Window lengths of those spectrograms, in samples; each has a mel bin for 6.4 samples."""

    alignment_weight: float = 45.0
    """Weight of the alignment of the acoustic side to the semantic one."""

    alignment: AlignmentMode = "both"
    """Which features are aligned: those of the teacher's size, the small ones, or both."""

    kl_weight: float = 0.01
    """Weight of the divergence from the standard normal distribution: the higher, the easier to generate and the
    further from the recording."""

    kl_clamp: float = 0.0
    """Divergence of each dimension below which it costs nothing more, in nats. Another thing than ``kl_weight``."""

    log_variance_weight: float = 0.0
    """Weight of the squared log-variances."""

    adversarial_weight: float = 1.0
    """Weight of the discriminators' verdict."""

    feature_weight: float = 1.0
    """Weight of the distance of the discriminators' features."""

    discriminator_start: int | None = 1
    """First update with discriminators, without which updates take a fraction of the time. None: never."""

    discriminator_learning_rate: float | None = None
    """Peak learning rate of the discriminators. None: the tokenizer's."""

    discriminator_windows: tuple[int, ...] = (2048, 1024, 512)
    """Window lengths of the spectrograms that they look at, in samples."""

    discriminator_channels: int = 32
    """Width of their layers."""

    def __post_init__(self) -> None:
        require_positive(
            self, "decoder_size", "decoder_intermediate_size", "decoder_layers", "num_mels", "n_fft", "upsampling",
            "discriminator_start", "discriminator_learning_rate", "discriminator_channels", prefix="tokenizer.",
        )  # fmt: skip
        require_not_negative(
            self, "mel_weight", "alignment_weight", "kl_weight", "kl_clamp", "log_variance_weight",
            "adversarial_weight", "feature_weight", prefix="tokenizer.",
        )  # fmt: skip
        for name, least in (("mel_windows", 32), ("discriminator_windows", 64)):
            windows = getattr(self, name)
            if not windows or any(window < least or window % 4 for window in windows):
                raise ValueError(
                    f"tokenizer.{name}={list(windows)}: use one or more multiples of 4 from {least} on, such as 1024"
                )
        self._refuse_what_has_no_effect()

    def _refuse_what_has_no_effect(self) -> None:
        has_game = self.discriminator_start is not None
        of_game = self.adversarial_weight + self.feature_weight if has_game else 0
        if has_game and not of_game:
            raise ValueError(
                "tokenizer.adversarial_weight and tokenizer.feature_weight are both 0: nothing comes of the "
                "discriminators; set tokenizer.discriminator_start: null"
            )
        if not (self.mel_weight + self.alignment_weight + self.kl_weight + self.log_variance_weight + of_game):
            raise ValueError("all weights of the losses in tokenizer are 0: nothing is learnt")
        causes = {
            "discriminator_start: null": () if has_game else OF_DISCRIMINATORS,
            "alignment_weight: 0": () if self.alignment_weight else ("alignment",),
            "kl_weight: 0": () if self.kl_weight else ("kl_clamp",),
        }
        defaults = {entry.name: entry.default for entry in dataclasses.fields(self)}
        for cause, names in causes.items():
            for name in names:
                if getattr(self, name) != defaults[name]:
                    raise ValueError(f"tokenizer.{name} has no effect with tokenizer.{cause}; remove it")


@dataclass(frozen=True, kw_only=True)
class LoSATokTrainingConfig(RunConfig):
    """One stage of a LoSATok's training."""

    stage: Literal["semantic", "tokenizer"]
    """What to train: ``semantic``, the bottleneck of a frozen teacher (SemBo), or then ``tokenizer``, all else."""

    train_data: str
    """Recordings to train on: JSONL, parquet, a folder saved by ``datasets``, or a Hub id."""

    semantic: SemanticStageSettings = field(default_factory=SemanticStageSettings)
    """Only with ``stage: semantic``."""

    tokenizer: TokenizerStageSettings = field(default_factory=TokenizerStageSettings)
    """Only with ``stage: tokenizer``."""

    segment_tokens: int = 50
    """Tokens of each segment that is cut out of a recording at random (25 are a second)."""

    segments_per_update: int = 64
    """Segments of an update, over all processes."""

    segments_per_pass: int = 16
    """Most segments per process in one forward pass: changes memory and speed, not the update."""

    ema_decay: float = 0.999
    """Decay of the averaged weights, which the run evaluates and ends with. 0: the weights as they are."""

    learning_rate: float = 1e-4
    warmup_ratio: float = 0.01
    betas: tuple[float, float] = (0.8, 0.99)

    min_seconds: float = 0.2
    """Shorter recordings are refused."""

    mono: Literal["mean", "first"] = "mean"
    """What a recording of several channels becomes."""

    on_bad: Literal["error", "skip"] = "error"
    """What happens to recordings that cannot be used. Either way they are listed."""

    cache_megabytes: int = 512
    """Decoded recordings are kept in memory up to this size (1.9 MB per minute)."""

    eval_clips: int = 8
    """Held-out recordings that evaluations look at, and leave sounds and pictures of; 0 for none."""

    eval_seconds: float = 10.0
    """Of longer ones the beginning counts."""

    collapsed_below: float = 0.01
    """A latent dimension whose divergence is below this many nats tells nothing, and counts as collapsed."""

    collapse_alarm: float = 0.5
    """Evaluations raise an alarm when this share of the dimensions is collapsed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(
            self, "learning_rate", "segment_tokens", "segments_per_update", "segments_per_pass", "eval_seconds",
            "min_seconds", "collapse_alarm",
        )  # fmt: skip
        require_not_negative(self, "eval_clips", "cache_megabytes", "collapsed_below")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}: use a number in [0, 1), such as 0.999")
        self._refuse_the_other_stages_settings()
        if self.stage == "semantic" and self.semantic.teacher is None:
            raise ValueError("stage: semantic needs semantic.teacher, the frozen encoder whose features are made small")
        if self.stage == "tokenizer" and self.tokenizer.semantic is None:
            raise ValueError(
                "stage: tokenizer needs tokenizer.semantic, what the first stage leaves. Train it first:\n"
                f"  {STAGE_ONE}\nthen add --tokenizer.semantic SEMANTIC, or name a folder with a released "
                "semantic_encoder.pth"
            )

    def _refuse_the_other_stages_settings(self) -> None:
        other = "tokenizer" if self.stage == "semantic" else "semantic"
        settings = getattr(self, other)
        for entry in dataclasses.fields(settings):
            if getattr(settings, entry.name) != getattr(type(settings)(), entry.name):
                raise ValueError(f"{other}.{entry.name} has no effect with stage: {self.stage}; remove it")
        if self.stage == "semantic":
            for name in ("collapsed_below", "collapse_alarm"):  # of latents, which the first stage has none of
                if getattr(self, name) != getattr(type(self), name):
                    raise ValueError(f"{name} has no effect with stage: semantic; remove it")
