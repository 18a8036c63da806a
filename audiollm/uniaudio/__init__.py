"""UniAudio 2.0: one autoregressive LM over streams of audio codes and one of text, around a pretrained text LLM.

Reading order: ``configuration`` (with ``special_ids`` and ``stacks``) → ``layout`` (texts and codes to rows of ids) →
``modeling`` (rows to logits and ``losses``) → ``generation`` (rows to what follows them) → ``processor`` (conversations
to rows, codes to sound) → ``assistant`` (both together) → ``released`` (names of the published weights).
"""

from __future__ import annotations

from .assistant import UniAudio, UniAudioAnswers, is_uniaudio
from .cache import UniAudioCache
from .configuration import UniAudioLMConfig
from .generation import UniAudioGeneration
from .layout import TASKS, Layout, Task, lay_out, lay_out_prompt, pad_batch
from .modeling import UniAudioLM, UniAudioLMOutput
from .processor import UniAudioProcessor
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
    "UniAudio",
    "UniAudioAnswers",
    "UniAudioCache",
    "UniAudioGeneration",
    "UniAudioLM",
    "UniAudioLMConfig",
    "UniAudioLMOutput",
    "UniAudioProcessor",
    "is_uniaudio",
    "lay_out",
    "lay_out_prompt",
    "pad_batch",
]
