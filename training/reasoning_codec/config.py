"""Settings of a stage of a ReasoningCodec's training: one frozen dataclass, read from YAML and flags."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from audiollm.tokenizer.reasoningcodec.windows import ENCODED_SECONDS
from audiollm.training.alignment.config import GRPOSettings, check_groups, refuse_what_trl_decides
from audiollm.training.loop.config import RunConfig, require_not_negative, require_positive

from .reconstruction_settings import ReconstructionSettings
from .settings import AnalysisSettings, CodecSizes, EncodersSettings
from .stages import FIRST_STAGE, StageName


@dataclass(frozen=True, kw_only=True)
class ReasoningCodecTrainingConfig(RunConfig):
    """One stage of a ReasoningCodec's training."""

    stage: StageName
    """What to train: ``supervised``, reasoning codes of which a text LLM can write what is heard; ``grpo``, the same
    by rewards of what it writes; ``reconstruction``, codes and decoder that give the sound back, the reasoning codes
    frozen."""

    codec: str | None = None
    """What the stage before has left: the folder of its run, or of a codec. For the first stage a codec to go on with;
    None: a new one."""

    encoders: EncodersSettings | None = None
    """What a new codec hears by."""

    sizes: CodecSizes = field(default_factory=CodecSizes)
    """Of a new codec."""

    llm: str | None = None
    """For the first stage: the text LLM that is to write what is heard, a folder or Hub id. None, with ``codec``: the
    one that its run has left."""

    analysis: AnalysisSettings = field(default_factory=AnalysisSettings)
    """Of what the text LLM writes; not with ``stage: reconstruction``."""

    grpo: GRPOSettings | None = None
    """Rewards, and how answers are drawn; with ``stage: grpo``, and only there."""

    reconstruction: ReconstructionSettings = field(default_factory=ReconstructionSettings)
    """Only with ``stage: reconstruction``."""

    mono: Literal["mean", "first"] = "mean"
    """What a recording of several channels becomes."""

    max_seconds: float = ENCODED_SECONDS
    """Longer clips cannot be used by the first two stages; at most the 30 s that are heard at once."""

    on_bad: Literal["error", "skip"] = "error"
    """What happens to records that cannot be used. Either way they are listed."""

    cache_megabytes: int = 512
    """Decoded recordings are kept in memory up to this size (2.9 MB per minute)."""

    global_batch_size: int = 32
    """Clips of an update, over all processes; with ``stage: grpo`` answers."""

    micro_batch_size: int = 8
    """Most clips, or answers, per process in one forward pass: changes memory and speed, not the update."""

    learning_rate: float = 1e-4
    warmup_ratio: float = 0.02

    eval_clips: int = 0
    """Held-out clips that evaluations look at, the same each time; 0: all."""

    eval_samples: int = 8
    """Of each kind of text, held-out clips that evaluations write it of."""

    eval_max_new_tokens: int = 200
    """Longest text that they write, in tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(
            self, "learning_rate", "max_seconds", "global_batch_size", "micro_batch_size", "eval_max_new_tokens"
        )
        require_not_negative(self, "cache_megabytes", "eval_clips", "eval_samples")
        if self.max_seconds > ENCODED_SECONDS:
            raise ValueError(f"max_seconds={self.max_seconds:g}: {ENCODED_SECONDS} s are heard at once; cut the clips")
        if self.stage == "supervised" and self.codec is None and (self.llm is None or self.encoders is None):
            raise ValueError(
                "a new codec needs llm, and encoders.whisper, encoders.wavlm and encoders.music to hear by; to go on "
                "with one, name it by codec"
            )
        if self.stage != "supervised" and self.codec is None:
            raise ValueError(
                f"stage: {self.stage} needs codec, what the stage before has left. Run the first one:\n  {FIRST_STAGE}"
                f"\nthen --stage {self.stage} --codec SUPERVISED"
            )

        self._refuse_settings_of_others()
        if self.grpo is not None:
            self._check_rewarded(self.grpo)

    def _check_rewarded(self, grpo: GRPOSettings) -> None:
        """Refuses what trl's trainer does in its own way, or not at all for a codec."""
        refuse_what_trl_decides(self, others="stages")
        if grpo.beta:
            raise ValueError(
                f"grpo.beta={grpo.beta}: trl would load the model at the start by its name, and a codec with an LLM "
                "has none; leave it out, and lower learning_rate to stay near the start"
            )
        if grpo.modalities == "audio":
            raise ValueError("grpo.modalities=audio: analyses are text; leave it out")
        if self.analysis.llm_learning_rate is not None:
            raise ValueError("analysis.llm_learning_rate is of the first stage: trl has one learning rate; remove it")
        check_groups(self.global_batch_size, grpo)

    def _refuse_settings_of_others(self) -> None:
        here = f"stage: {self.stage}"
        if self.stage == "reconstruction":
            _refuse(self.analysis, "analysis", here)
        else:
            _refuse(self.reconstruction, "reconstruction", here)
        if self.stage != "supervised" and self.llm is not None:
            raise ValueError(f"llm has no effect with {here}, which takes what codec has; remove it")
        if (self.stage == "grpo") != (self.grpo is not None):
            told = (
                "needs grpo.rewards, such as '[{name: sap}]'" if self.grpo is None else "has no use for grpo; remove it"
            )
            raise ValueError(f"{here} {told}")
        if self.analysis.lora is not None and self.llm is None:
            raise ValueError("analysis.lora goes with llm; without it, what codec has left is trained on. Remove it")
        if self.analysis.dtype != "float32" and self.llm is not None and self.analysis.lora is None:
            raise ValueError(
                f"analysis.dtype={self.analysis.dtype}: all weights are trained, in float32; leave it out or add lora"
            )
        if self.codec is not None:
            _refuse(self.sizes, "sizes", "codec, which brings its own")
            if self.encoders is not None:
                raise ValueError("encoders has no effect with codec, which brings its own; remove it")


def _refuse(settings: Any, name: str, cause: str) -> None:
    """Refuses settings that are not what they are without being given."""
    for entry in dataclasses.fields(settings):
        if getattr(settings, entry.name) != getattr(type(settings)(), entry.name):
            raise ValueError(f"{name}.{entry.name} has no effect with {cause}; remove it")
