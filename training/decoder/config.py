"""What a decoder's training run can be told: one frozen dataclass for both models, read from YAML and flags."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig
from audiollm.tokenizer.decoder.flow.masking import Padding

from .vocoder_settings import VocoderSettings

_POSITIVE = ("frames_per_update", "frames_per_pass", "log_every", "keep_checkpoints", "learning_rate", "max_seconds")
_POSITIVE_OR_NONE = ("max_steps", "eval_every", "save_every", "num_processes", "max_grad_norm", "num_epochs")
_NOT_NEGATIVE = ("weight_decay", "seed", "eval_clips", "min_seconds")


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """Settings of the flow model's training alone."""

    initialise_embedding: bool = True
    """Start the embedding of codes from the audio tokenizer's codebook (its main directions), if one is named: codes
    that sound alike start alike, and rare ones learn from their neighbours."""

    padding: Padding = "hidden"
    """How clips of different lengths share a batch. ``hidden``: each is trained as it will be decoded, whatever is
    beside it. ``reference``: as released decoders were trained, with padding in the statistics of the norms."""

    ema_decay: float = 0.999
    """Decay of the averaged weights, which the run ends with."""

    eval_steps: int = 10
    """Steps of the sampler when held-out mel spectrograms are made."""

    eval_vocoder: str | None = None
    """Vocoder that makes sound of them: a vocoder's training run, or a decoder. With it, evaluations also measure
    mel-cepstral distortion and, with ``eval_asr``, word error rate, and write waveforms and pictures. None: mels."""

    speaker_encoder: str | None = None
    """Speaker encoder, such as ``resemblyzer``, that describes every clip whose record has no ``speaker_vector``;
    ``decoder.flow.speaker_size`` must be the size of its vectors. None: zeros, the neutral voice."""

    def __post_init__(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"flow.ema_decay={self.ema_decay}: use a number in [0, 1), such as 0.999")
        if self.eval_steps < 1:
            raise ValueError(f"flow.eval_steps={self.eval_steps}: use 1 or more, such as 10")


@dataclass(frozen=True, kw_only=True)
class DecoderTrainingConfig:
    """One training run of a decoder's flow model or vocoder."""

    model: Literal["flow", "vocoder"]
    """What to train: ``flow`` (codes to mel) or ``vocoder`` (mel to waveform)."""

    train_data: str
    """Clips to train on: JSONL or parquet with ``audio`` and ``codes``, as ``audiollm tokenize`` writes them."""

    output_dir: str
    """Folder of the run: metrics, checkpoints, evaluations and the trained model."""

    eval_data: str | None = None
    """Held-out clips, in the same formats. None: no evaluation."""

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

    num_epochs: float | None = 1.0
    """Passes over the training data, when ``max_steps`` is not given."""

    max_steps: int | None = None
    """Number of updates; takes the place of ``num_epochs``."""

    learning_rate: float = 1e-3
    """Peak learning rate, reached at the end of the warm-up."""

    warmup_ratio: float = 0.03
    """Share of the updates over which the learning rate rises linearly."""

    min_learning_rate_ratio: float = 0.05
    """The cosine ends at this share of the peak."""

    weight_decay: float = 0.01
    """Decoupled weight decay (AdamW); not applied to norms and biases."""

    betas: tuple[float, float] = (0.9, 0.98)
    """Decay rates of AdamW's two moments."""

    max_grad_norm: float | None = 1.0
    """Gradients are clipped to this global L2 norm. None: no clipping."""

    mixed_precision: Literal["no", "bf16"] = "no"
    """bf16 computes in bfloat16 and keeps float32 weights."""

    seed: int = 0
    """Decides the initial weights, the data order, dropout and everything drawn at random."""

    eval_every: int | None = None
    """Updates between evaluations. None: only after the last update."""

    eval_clips: int = 16
    """Held-out clips that are decoded at each evaluation; 0 for the loss alone."""

    eval_asr: str | None = None
    """Speech recognizer that reads the made clips at each evaluation: a folder, a Hub id, or ``whisper-tiny.en`` or
    ``whisper-base`` from a package index. None: no word error rate."""

    save_every: int | None = None
    """Updates between checkpoints. None: only after the last update."""

    keep_checkpoints: int = 2
    """Newest checkpoints to keep."""

    resume: str | None = None
    """``latest``, or a checkpoint folder, to go on from. ``latest`` in a fresh folder starts from the beginning."""

    log_every: int = 1
    """Updates between lines of metrics.jsonl. A line describes its own update, not an average."""

    num_processes: int | None = None
    """Refuse to start on any other number of processes."""

    flow: FlowSettings = field(default_factory=FlowSettings)
    """Only with ``model: flow``."""

    vocoder: VocoderSettings = field(default_factory=VocoderSettings)
    """Only with ``model: vocoder``."""

    def __post_init__(self) -> None:
        for name in ("train_data", "output_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: give a path")
        for name in _POSITIVE + _POSITIVE_OR_NONE:
            value = getattr(self, name)
            if value is None and name in _POSITIVE_OR_NONE:
                continue
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}={value}: use a positive, finite number")
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: use zero or more")
        for name in ("warmup_ratio", "min_learning_rate_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: use a share between 0 and 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas}: use two numbers in [0, 1), such as 0.9 and 0.98")
        if self.num_epochs is None and self.max_steps is None:
            raise ValueError("neither num_epochs nor max_steps is given: say how long to train")
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds={self.min_seconds} is above max_seconds={self.max_seconds}: swap them")
        if self.eval_data is None and self.eval_every is not None:
            raise ValueError("eval_every needs eval_data: name a file of held-out clips")
        if self.eval_data is None and self.flow.eval_vocoder is not None:
            raise ValueError("flow.eval_vocoder needs eval_data: name a file of held-out clips")
        self._refuse_the_other_models_settings()

    def _refuse_the_other_models_settings(self) -> None:
        other = "vocoder" if self.model == "flow" else "flow"
        settings = getattr(self, other)
        for entry in dataclasses.fields(settings):
            if getattr(settings, entry.name) != getattr(type(settings)(), entry.name):
                raise ValueError(f"{other}.{entry.name} has no effect with model: {self.model}; remove it")
