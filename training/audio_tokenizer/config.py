"""Settings of one stage of a tokenizer's training: one frozen dataclass, read from YAML and flags."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from audiollm.data.audio.augmentation import AugmentationConfig
from audiollm.training.loop.batches import updates_of_epochs
from audiollm.training.loop.config import RunConfig, require_given, require_not_negative, require_positive

# What a training checkpoint lets one change; everything else of its architecture is its own.
QUANTIZER_SETTINGS = (
    "codebook_size", "ema_decay", "restart_interval", "loss_scale", "commit_coefficient", "metric_size",
)  # fmt: skip

# What a checkpoint of StableToken lets one change; and what only one of both kinds has.
VOTE_SETTINGS = (
    "commit_coefficient", "num_clean_voters", "sample_entropy_weight", "codebook_entropy_weight", "consensus_weight",
)  # fmt: skip
_ONLY_OF = {
    "stabletoken": ("num_voters", "num_clean_voters", "sample_entropy_weight", "codebook_entropy_weight",
                    "consensus_weight", "norm_after_quantizer"),
    "uniaudio": ("use_sae", "use_adapter", "use_gate", "sae_source_position", "sae_target_position", "ema_decay",
                 "restart_interval", "loss_scale", "metric_size"),
}  # fmt: skip

TokenizerKindName = Literal["uniaudio", "stabletoken"]
FreezablePart = Literal[
    "encoder", "conv", "layers_before_quantizer", "sae", "codebook", "code_positions", "decoder", "embeddings"
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """The tokenizer to make of a Whisper model. None: the value in brackets, or a training checkpoint's own."""

    kind: TokenizerKindName | None = None
    """What to make (uniaudio): ``uniaudio``, with a codebook of averages and the gated residual, or ``stabletoken``,
    whose codes are voted for, some voters hearing the clip with noise. Settings of the other kind are refused."""

    quantize_position: int | None = None
    """Encoder layer behind which the quantizer sits (half the depth)."""

    codebook_size: int | None = None
    """Entries of the codebook (8192). With ``initialise_codebook: kmeans`` a checkpoint can be given another one."""

    pooling_kernel_size: int | None = None
    """Encoder frames merged into one token (2, which makes 25 tokens per second)."""

    pooling_position: int | None = None
    """Layer behind which they are merged (0: in front of the first; stabletoken: ``quantize_position``)."""

    use_sae: bool | None = None
    """Bring a shallow layer's features back by the gated residual (yes)."""

    use_adapter: bool | None = None
    """Pass them through the residual's two-layer adapter (yes)."""

    use_gate: bool | None = None
    """Weight them by the residual's gate (yes)."""

    sae_source_position: int | None = None
    """The shallow layer (3, or the layer in front of the quantizer if that comes earlier)."""

    sae_target_position: int | None = None
    """Layer to whose output they are added (``quantize_position``). Behind the quantizer they do not reach the
    tokens."""

    encoder_layers: int | None = None
    """Keep only the first layers of the Whisper encoder (all)."""

    decoder_layers: int | None = None
    """Keep so many of the Whisper decoder's layers, evenly spaced (all)."""

    ema_decay: float | None = None
    """Decay of the codebook's moving averages (0.95)."""

    restart_interval: int | None = None
    """Updates between restarts of dead codes (10)."""

    loss_scale: float | None = None
    """Weight of the quantizer loss (10)."""

    commit_coefficient: float | None = None
    """Weight of the commitment inside it (0.25), which pulls features to their entries, or voters to the vote."""

    metric_size: int | None = None
    """Dimensions in which distances to entries are measured: so many principal components of the features, each divided
    by its deviation (the features as they are, which is how the release does it; 0 takes a checkpoint's away). Fitted
    by ``initialise_codebook: kmeans``; the published code would find other codes with what comes out."""

    num_voters: int | None = None
    """Of stabletoken: linear maps that vote on each bit of a code (5)."""

    num_clean_voters: int | None = None
    """Of stabletoken: voters that hear the clip as it is; the others hear it degraded by ``augmentation`` (3)."""

    sample_entropy_weight: float | None = None
    """Of stabletoken: weight of each frame's entropy in the loss, so that voters make up their minds (1)."""

    codebook_entropy_weight: float | None = None
    """Of stabletoken: weight of the entropy of all codes, which the loss makes large, so that all are used (1)."""

    consensus_weight: float | None = None
    """Of stabletoken: weight of the voters' distance from their mean (0.25)."""

    norm_after_quantizer: bool | None = None
    """Of stabletoken: apply Whisper's final norm to what the text decoder reads (no)."""

    dropout: float | None = None
    """Dropout of all layers (the checkpoint's own: 0 in Whisper, 0.1 in the residual's adapter)."""

    def __post_init__(self) -> None:
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"audio_tokenizer.dropout={self.dropout}: use a probability in [0, 1), such as 0.1")
        for name in ("sample_entropy_weight", "codebook_entropy_weight", "consensus_weight"):
            weight = getattr(self, name)
            if weight is not None and not (weight >= 0 and math.isfinite(weight)):
                raise ValueError(f"audio_tokenizer.{name}={weight}: use a finite weight of zero or more")
        if self.kind is not None:
            check_kind(self, self.kind)


@dataclass(frozen=True, kw_only=True)
class TaskWeights:
    """How often each text is the target of a clip that has several of them; 0 leaves a task out."""

    asr: float = 1.0
    """The transcript, ``text``."""

    sap: float = 1.0
    """The structured description, ``sap``."""

    caption: float = 1.0
    """The free description, ``caption``."""

    emotion: float = 1.0
    """The emotion's name, ``emotion``."""

    def __post_init__(self) -> None:
        for name, weight in dataclasses.asdict(self).items():
            if not (weight >= 0 and math.isfinite(weight)):
                raise ValueError(f"tasks.{name}={weight}: use a finite weight of zero or more")
        if not any(dataclasses.asdict(self).values()):
            raise ValueError("all tasks have weight 0: give at least one a positive weight, such as tasks.asr=1")


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainingConfig(RunConfig):
    """One stage of a tokenizer's training."""

    train_data: str
    """Clips with texts: JSONL, parquet, a folder saved by ``datasets``, or a Hub id."""

    output_dir: str
    """Folder of the run: metrics, checkpoints, evaluations, plots and the trained model."""

    start_from: str
    """A Whisper model (folder, Hub id, or ``whisper-tiny.en`` or ``whisper-base`` from a package index), an earlier
    run's folder, or a training checkpoint."""

    quantized: bool
    """False: stage 1, in which the decoder reads continuous features. True: stage 2, with the quantizer."""

    audio_tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    """Settings of the tokenizer that is made of a Whisper model, as ``audio_tokenizer.codebook_size`` and so on. Not a
    folder or Hub id, as an option of this name is elsewhere: what to start from is ``start_from``."""

    warm_start: bool = True
    """Let what Whisper does not have begin softly, so that its decoder understands the features from the first update:
    positions of codes at a tenth, a residual that adds nothing yet, voters on principal components. Only where
    ``start_from`` is a Whisper model."""

    initialise_codebook: Literal["kmeans", "keep"] | None = None
    """Where a quantized run's codebook starts: at centres of training frames, or as ``start_from`` has it. None:
    ``kmeans`` where there are entries; stabletoken has none."""

    codebook_frames_per_entry: int = 20
    """Training frames per entry that ``kmeans`` looks at, as far as the data go."""

    tasks: TaskWeights = field(default_factory=TaskWeights)
    """Which texts are trained on."""

    output_vocabulary: Literal["all", "seen"] = "all"
    """``seen``: the decoder chooses only between tokens that occur in the data, which makes small models much faster to
    train. What is saved has all tokens either way."""

    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """How clips are degraded, so that codes learn to stay the same. By default none is. Of stabletoken, the voters that
    are not clean hear the degraded clip, the others the clip itself."""

    global_batch_size: int = 64
    """Clips per update, over all processes."""

    micro_batch_size: int = 8
    """Most clips per process in one forward pass: changes memory and speed, not the update."""

    learning_rate: float = 2e-4
    """Peak learning rate of what Whisper does not have: the residual (SAE) and the positions added to codes."""

    encoder_learning_rate: float = 1e-5
    """Peak learning rate of the encoder."""

    decoder_learning_rate: float = 6e-4
    """Peak learning rate of the text decoder."""

    freeze: tuple[FreezablePart, ...] = ()
    """Parts that keep their weights, or entries; ``conv`` and ``layers_before_quantizer`` are parts of the encoder, and
    ``embeddings`` (which are also the output matrix) one of the decoder."""

    warmup_steps: int | None = None
    """Updates over which the learning rates rise linearly. None: ``warmup_ratio`` of all."""

    warmup_ratio: float = 0.03
    """The same as a share of all updates."""

    mixed_precision: Literal["no", "bf16"] = "no"
    """bf16 computes in bfloat16 and keeps float32 weights; the quantizer always computes in float32."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    max_seconds: float = 30.0
    """Longer clips are refused, not cut: their texts would no longer be right."""

    pad_to_seconds: float | None = None
    """Pad every clip to this length, as the published training does with 30. None: to the longest of a forward
    pass, which is much faster and hides the padding all the same."""

    max_text_tokens: int | None = None
    """Longer texts are refused. None: what the decoder has positions for."""

    mono: Literal["mean", "first"] = "mean"
    """What a clip of several channels becomes."""

    on_bad: Literal["error", "skip"] = "error"
    """What happens to records that cannot be used. Either way they are listed."""

    cache_megabytes: int = 512
    """Decoded clips are kept in memory up to this size (1.9 MB per minute), so that small data are decoded once."""

    seed: int = 0
    """Decides new weights, the data order, tasks, augmentation, dropout and restarts of codes."""

    eval_clips: int = 256
    """Held-out clips that evaluations look at; 0 for all."""

    eval_samples: int = 8
    """Of these, clips whose texts are generated at each evaluation; 0 for the losses alone."""

    eval_max_new_tokens: int = 200
    """Longest generated text, in tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_given(self, "start_from")
        require_positive(
            self, "global_batch_size", "micro_batch_size", "max_seconds", "codebook_frames_per_entry",
            "eval_max_new_tokens", "pad_to_seconds", "max_text_tokens", "warmup_steps",
        )  # fmt: skip
        # A part whose learning rate is zero keeps its weights.
        require_not_negative(
            self, "learning_rate", "encoder_learning_rate", "decoder_learning_rate", "eval_clips", "eval_samples",
            "cache_megabytes",
        )  # fmt: skip
        if self.audio_tokenizer.kind == "stabletoken":
            check_voting_run(self)
        if self.muon_learning_rate is not None:
            raise ValueError(
                "muon_learning_rate: each part of a tokenizer has its learning rate, which its matrices follow too; "
                "set learning_rate, encoder_learning_rate and decoder_learning_rate"
            )
        if self.max_seconds > 30:
            raise ValueError(f"max_seconds={self.max_seconds}: Whisper encoders take at most 30 seconds")
        if self.pad_to_seconds is not None and self.pad_to_seconds < self.max_seconds:
            raise ValueError(
                f"pad_to_seconds={self.pad_to_seconds} is below max_seconds={self.max_seconds}: use "
                f"{self.max_seconds} or more, up to 30, or null"
            )
        if self.pad_to_seconds is not None and self.pad_to_seconds > 30:
            raise ValueError(f"pad_to_seconds={self.pad_to_seconds}: Whisper encoders take at most 30 seconds")


def passes_per_update(config: TokenizerTrainingConfig, num_processes: int) -> int:
    """Forward passes that every process makes for an update; some may have less in them than others, or nothing."""
    clips = math.ceil(config.global_batch_size / num_processes)
    return math.ceil(clips / config.micro_batch_size)


def num_updates(config: TokenizerTrainingConfig, num_records: int) -> int:
    """Updates of the whole run over ``num_records`` training clips.

    Raises:
        ValueError: if the run would end before its warm-up does.
    """
    if config.max_steps is not None:
        updates = config.max_steps
    else:
        assert config.num_epochs is not None
        updates = updates_of_epochs(config.num_epochs, num_records, config.global_batch_size)
    if config.warmup_steps is not None and config.warmup_steps >= updates > 1:
        raise ValueError(
            f"warmup_steps={config.warmup_steps}, but the run has only {updates} updates: lower it, or train longer"
        )
    return updates


def settings_given(settings: TokenizerSettings) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in dataclasses.asdict(settings).items() if value is not None}


def check_kind(settings: TokenizerSettings, kind: TokenizerKindName) -> None:
    """Refuses settings that a kind of tokenizer does not have.

    Raises:
        ValueError: naming them.
    """
    others = [name for other, names in _ONLY_OF.items() if other != kind for name in names]
    given = settings_given(settings)
    if foreign := [f"audio_tokenizer.{name}={given[name]}" for name in others if name in given]:
        raise ValueError(f"{', '.join(foreign)}: a tokenizer of kind {kind} has no such thing; remove what is too much")


def check_voting_run(config: TokenizerTrainingConfig) -> None:
    """Refuses what StableToken's one stage of training does without.

    Raises:
        ValueError: naming the setting.
    """
    if not config.quantized:
        raise ValueError(
            "quantized=false: stabletoken is trained in one stage, with its quantizer from the first update on; set "
            "quantized: true"
        )
    if config.initialise_codebook == "kmeans":
        raise ValueError(
            "initialise_codebook=kmeans: stabletoken has no entries to place; its voters begin by warm_start. Remove it"
        )
    if "sae" in config.freeze:
        raise ValueError("freeze=sae: stabletoken has no gated residual; remove it")
