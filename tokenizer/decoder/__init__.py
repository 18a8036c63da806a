"""Codes to sound: a flow model makes a mel spectrogram of the codes, a vocoder a waveform of the mel.

Reading order: ``model.py`` (:class:`WaveformDecoder`), ``inputs.py`` (what it takes), ``batching.py`` (rows of any
number and length), ``flow/`` (codes to mel), ``vocoder/`` (mel to waveform); then ``streaming/`` (codes as they come),
``checkpoints/`` (where the weights come from) and ``attached.py`` (the decoder beside a tokenizer).

Public names are imported on first use (PEP 562): whoever needs the sizes does not wait for the models.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME_OF = {
    "StreamingDecoder": "streaming.decoder",
    "VoicePrompt": "inputs",
    "WaveformDecoder": "model",
    "WaveformDecoderConfig": "configuration",
    "convert_decoder": "model",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names are {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
