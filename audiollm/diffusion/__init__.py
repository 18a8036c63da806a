"""Sound from text: a diffusion transformer with flow matching on an audio tokenizer's continuous latents.

Reading order: ``configuration`` (sizes, and what the latents are) → ``text`` (texts to vectors) → ``transformer`` (the
velocity of the flow) → ``modeling`` (loss and sampling) → ``generator`` (texts to sound, with the audio tokenizer).
"""

from __future__ import annotations

from .configuration import TASKS, LatentDiffusionConfig, Task
from .generator import AudioGenerator, GeneratedAudio
from .modeling import LatentDiffusion

__all__ = ["TASKS", "AudioGenerator", "GeneratedAudio", "LatentDiffusion", "LatentDiffusionConfig", "Task"]
