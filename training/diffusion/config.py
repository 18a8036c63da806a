"""Settings of the training of a diffusion transformer: one frozen dataclass, read from YAML and flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from audiollm.diffusion.configuration import Task
from audiollm.training.loop.config import RunConfig, require_given, require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class TransformerSettings:
    """Sizes of the diffusion transformer."""

    hidden_size: int = 1024
    """Its width, a multiple of twice ``num_heads``."""

    num_layers: int = 12
    """Its blocks."""

    num_heads: int = 16
    """Of each attention."""

    def __post_init__(self) -> None:
        require_positive(self, "hidden_size", "num_layers", "num_heads", prefix="transformer.")


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """What texts are read by."""

    encoder: str | None = None
    """A text encoder of transformers that stays as it is (T5, BERT, RoBERTa …), as folder or Hub id. None: a small one
    over bytes is trained along."""

    size: int = 256
    """Width of the small one."""

    num_layers: int = 4
    """Its blocks."""

    num_heads: int = 4
    """Of its attention; they divide ``size``."""

    max_tokens: int = 512
    """Longest text, in tokens (bytes, for the small one). Longer ones are refused, not cut."""

    def __post_init__(self) -> None:
        require_positive(self, "size", "num_layers", "num_heads", "max_tokens", prefix="text.")
        if self.encoder is not None:
            for name in ("size", "num_layers", "num_heads"):
                if getattr(self, name) != getattr(TextSettings, name):
                    raise ValueError(f"text.{name} has no effect with text.encoder, which has its own; remove it")


@dataclass(frozen=True, kw_only=True)
class DiffusionTrainingConfig(RunConfig):
    """Training of a diffusion transformer that makes latents of texts."""

    train_data: str
    """Recordings with a text each: JSONL, parquet, a folder saved by ``datasets``, or a Hub id."""

    audio_tokenizer: str
    """Whose latents are learnt: folder or Hub id of one with latents and a decoder, such as a LoSATok. A copy goes into
    the model."""

    transformer: TransformerSettings = field(default_factory=TransformerSettings)
    """Sizes."""

    text: TextSettings = field(default_factory=TextSettings)
    """Text encoder."""

    task: Task = "text_to_audio"
    """What records are that say neither ``task`` nor ``sound_type``."""

    min_seconds: float = 0.2
    """Shorter recordings are refused."""

    max_seconds: float = 10.0
    """Of longer ones a random part is trained on, but speech is refused: its text says all of it. The model makes no
    longer sound."""

    frames_per_update: int = 4000
    """Most latents of an update, over all processes, padding included."""

    frames_per_pass: int = 2000
    """Most latents per process in one forward pass: changes memory and speed, not the update."""

    condition_dropout: float = 0.1
    """Share of the clips that are trained without text, task and prompt, for guidance."""

    prompt_share: float = 0.5
    """Share of the clips whose beginning is given, so that the model can go on from a recording."""

    sample_latents: bool = False
    """Draw latents from their distribution each time, in place of its mean."""

    normalisation_clips: int = 256
    """Clips over which means and deviations of the latents are taken."""

    ema_decay: float = 0.999
    """Decay of the averaged weights, which the run evaluates and ends with. 0: the weights as they are."""

    learning_rate: float = 1e-4
    warmup_ratio: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)

    mono: Literal["mean", "first"] = "mean"
    """What a recording of several channels becomes."""

    on_bad: Literal["error", "skip"] = "error"
    """What happens to records that cannot be used. Either way they are listed."""

    cache_megabytes: int = 512
    """Latents are kept in memory up to this size; others are encoded again whenever their clip comes."""

    cache_dir: str | None = None
    """Folder in which the latents of all clips are kept, for this run and others. None: in memory alone."""

    eval_clips: int = 4
    """Held-out texts of which evaluations make sounds, and pictures beside the recordings; 0 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_given(self, "audio_tokenizer")
        require_positive(
            self, "learning_rate", "min_seconds", "max_seconds", "frames_per_update", "frames_per_pass",
            "normalisation_clips",
        )  # fmt: skip
        require_not_negative(self, "eval_clips", "cache_megabytes")
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds={self.min_seconds:g} is above max_seconds={self.max_seconds:g}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}: use a number in [0, 1), such as 0.999")
        for name, most in (("condition_dropout", 1.0), ("prompt_share", 1.0)):
            if not 0 <= getattr(self, name) < most:
                raise ValueError(f"{name}={getattr(self, name)}: use a share in [0, 1)")
