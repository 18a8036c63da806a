"""By what a checkpoint of GLM-4-Voice's tokenizer is told from UniAudio-Token's, which has the same layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GLM4_VOICE_LICENCE = "GLM-4-Voice weights: the GLM-4 model licence; read the checkpoint's own licence"
"""What a tokenizer of GLM-4-Voice says of its licence."""


def is_glm4_voice(config: Mapping[str, Any]) -> bool:
    """Whether a configuration of a Whisper encoder with a codebook is GLM-4-Voice's: blocks of time, and no SAE."""
    return (
        config.get("quantize_causal_block_size") is not None
        and config.get("encoder_residual_target_position") is None
        and config.get("licence_note", GLM4_VOICE_LICENCE) == GLM4_VOICE_LICENCE
    )
