"""Settings of a stage of a ReasoningCodec's training: one frozen dataclass, read from YAML and flags."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from audiollm.training.loop.config import RunConfig

from .reconstruction_settings import ReconstructionSettings
from .settings import CodecSizes, EncodersSettings
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
    """For the first stage: the text LLM that is to write what is heard, a folder or Hub id."""

    reconstruction: ReconstructionSettings = field(default_factory=ReconstructionSettings)
    """Only with ``stage: reconstruction``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_settings_of_others()
        if self.stage != "supervised" and self.codec is None:
            raise ValueError(
                f"stage: {self.stage} needs codec, what the stage before has left. Run the first one:\n  {FIRST_STAGE}"
                f"\nthen --stage {self.stage} --codec SUPERVISED"
            )

    def _refuse_settings_of_others(self) -> None:
        if self.stage != "reconstruction":
            _refuse(self.reconstruction, "reconstruction", f"stage: {self.stage}")
        if self.codec is not None:
            _refuse(self.sizes, "sizes", "codec, which brings its own")
            if self.encoders is not None:
                raise ValueError("encoders has no effect with codec, which brings its own; remove it")


def _refuse(settings: Any, name: str, cause: str) -> None:
    """Refuses settings that are not what they are without being given."""
    for entry in dataclasses.fields(settings):
        if getattr(settings, entry.name) != getattr(type(settings)(), entry.name):
            raise ValueError(f"{name}.{entry.name} has no effect with {cause}; remove it")
