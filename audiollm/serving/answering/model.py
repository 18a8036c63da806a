"""The model that is served, as far as requests need it: everything but the weights, which the engine has."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig

from audiollm.folders import check_folder
from audiollm.generation.passed_on import audio_sampling_of_checkpoint, speaks_in_turns
from audiollm.generation.plan import AnswerPlan, context_of
from audiollm.generation.planning import plan_answers
from audiollm.generation.settings import GenerationSettings
from audiollm.loading import check_settings, refused_by_transformers
from audiollm.modeling import AudioLLM
from audiollm.processing.processor import AudioLLMProcessor
from audiollm.sources.places import find_source


@dataclass(frozen=True, eq=False)
class ServedModel:
    """An Audio-LLM by what its folder says beside the weights.

    Attributes:
        name: by which clients call it.
        processor: messages to ids, and back.
        generation_config: how its answers end, and how its audio is drawn.
        context: the most tokens of prompt and answer together; None for no limit.
        created: when it began to be served, in seconds since 1970.
    """

    name: str
    processor: AudioLLMProcessor
    generation_config: GenerationConfig
    context: int | None
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, model: AudioLLM, name: str) -> ServedModel:
        """That of a model in memory."""
        return cls(name, model.processor, model.model.generation_config, context_of(model.model.config))

    @classmethod
    def without_weights(cls, folder: str, name: str) -> ServedModel:
        """That of a folder or Hub id whose weights are elsewhere.

        Raises:
            ValueError: if it is no Audio-LLM.
        """
        found = find_source(folder).model
        check_folder(found)
        check_settings(Path(found))
        with refused_by_transformers(folder):
            processor = AudioLLMProcessor.from_pretrained(found)
            config = AutoConfig.from_pretrained(found, trust_remote_code=False)
            stored = GenerationConfig.from_pretrained(found)
        return cls(name, processor, stored, context_of(config))

    @property
    def can_listen(self) -> bool:
        """Whether it takes recordings, not codes alone."""
        return self.processor.has_audio_tokenizer

    @property
    def can_speak(self) -> bool:
        """Whether its codes become sound."""
        return self.can_listen and self.processor.audio_tokenizer.can_decode

    @property
    def speaks_in_turns(self) -> bool:
        """Whether it writes a word, then speaks it, before the next."""
        return speaks_in_turns(self.generation_config)

    def plan(self, settings: GenerationSettings, input_ids: Any) -> AnswerPlan:
        """The rules of the answer to one prompt, ids ``[1, S]``; errors as for `plan_answers`."""
        settings = settings.with_audio_sampling(audio_sampling_of_checkpoint(self.generation_config))
        return plan_answers(
            settings, self.processor, input_ids, generation_config=self.generation_config, context=self.context
        )
