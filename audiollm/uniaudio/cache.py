"""Keys and values of the steps so far: a cache for each stack of layers."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import DynamicCache

from .configuration import UniAudioLMConfig


@dataclass
class UniAudioCache:
    """Keys and values of the steps so far, of each of the three stacks that see a whole sequence."""

    understanding: DynamicCache
    text: DynamicCache
    generation: DynamicCache

    @classmethod
    def empty(cls, config: UniAudioLMConfig) -> UniAudioCache:
        """Caches before the first step, each of the kinds of layers of its own stack."""
        return cls(
            DynamicCache(config=config.understanding_expert_config),
            DynamicCache(config=config.text_config),
            DynamicCache(config=config.generation_expert_config),
        )

    def get_seq_length(self) -> int:
        """Steps so far."""
        return int(self.text.get_seq_length())
