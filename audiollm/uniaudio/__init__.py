"""UniAudio 2.0: one autoregressive LM over streams of audio codes and one of text, around a pretrained text LLM.

Reading order: ``configuration`` (with ``special_ids`` and ``stacks``) → ``layout`` (texts and codes to rows of ids) →
``modeling`` (rows to logits and ``losses``) → ``generation`` (rows to what follows them) → ``released`` (names of the
published weights).
"""

from __future__ import annotations

from .cache import UniAudioCache
from .configuration import UniAudioLMConfig
from .generation import UniAudioGeneration
from .layout import TASKS, Layout, Task, lay_out, lay_out_prompt, pad_batch
from .modeling import UniAudioLM, UniAudioLMOutput
from .settings import GenerationSettings, StreamedFrame, StreamedText
from .special_ids import SpecialIds

__all__ = [
    "TASKS",
    "GenerationSettings",
    "Layout",
    "SpecialIds",
    "StreamedFrame",
    "StreamedText",
    "Task",
    "UniAudioCache",
    "UniAudioGeneration",
    "UniAudioLM",
    "UniAudioLMConfig",
    "UniAudioLMOutput",
    "lay_out",
    "lay_out_prompt",
    "pad_batch",
]
