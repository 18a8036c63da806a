"""The audio tokenizer: waveforms to codes, and where the checkpoint can, back.

Reading order: ``base.py`` (what a language model needs of any tokenizer), ``modeling.py`` (:class:`UniAudioTokenizer`),
``signal/``, ``encoder/`` and ``quantizer/`` (from waveform to code), ``decoder/`` (from code to waveform),
``checkpoints/`` (where weights come from), ``supervision/`` (how the tokenizer is trained).

Public names are imported on first use (PEP 562): whoever needs a mel spectrogram or the interface does not wait for
the models and transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME_OF = {
    "AudioTokenizer": "base",
    "Codebook": "quantizer.codebook",
    "CodebookFit": "quantizer.kmeans",
    "Codes": "base",
    "SapDecoder": "supervision.text_decoder",
    "SapText": "supervision.text",
    "SupervisedOutput": "supervision.model",
    "SupervisedTokenizer": "supervision.model",
    "UniAudioTokenizer": "modeling",
    "UniAudioTokenizerConfig": "configuration",
    "UniAudioTokenizerOutput": "modeling",
    "VoicePrompt": "decoder.inputs",
    "WaveformDecoder": "decoder.model",
    "WaveformDecoderConfig": "decoder.configuration",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names are {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
