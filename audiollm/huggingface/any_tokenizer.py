"""The configuration of an audio tokenizer of any kind, as the auto classes of transformers want one for a folder."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForAudioTokenization, PreTrainedConfig

from .registration import AudioTokenizerElsewhere


class AnyTokenizerConfig(PreTrainedConfig):
    """Says of which kind an audio tokenizer is that `CodecTokenizer.save_pretrained` wrote; the kind reads the rest."""

    model_type = "audiollm_tokenizer"

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **options: Any) -> Any:
        """Keeps ``model_type`` alone."""
        return super().from_dict({"model_type": config_dict["model_type"]}, **options)


AutoModelForAudioTokenization.register(AnyTokenizerConfig, AudioTokenizerElsewhere, exist_ok=True)
