"""Voices: what is said of them, and speech in a voice as training data.

Reading order: ``attributes`` (closed sets and free words) → ``levels`` (slow or fast, low or high, by comparison) →
``clips`` (speech with a transcript) → ``instructions`` (a voice in words) → ``speech_records`` (conversations).
``encoders`` turn recordings into speaker vectors, ``resemblyzer`` is the one that ships. Names are imported on first
use: attributes cost no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME_OF = {
    "SpeakerEncoder": "audiollm.data.voices.encoders",
    "SpeechTaskReport": "audiollm.data.voices.speech_records",
    "SpeechTaskSettings": "audiollm.data.voices.speech_records",
    "VocalAttributes": "audiollm.data.voices.attributes",
    "available_speaker_encoders": "audiollm.data.voices.encoders",
    "describe_voice": "audiollm.data.voices.instructions",
    "embed_recording": "audiollm.data.voices.encoders",
    "load_speaker_encoder": "audiollm.data.voices.encoders",
    "register_speaker_encoder": "audiollm.data.voices.encoders",
    "speech_request": "audiollm.data.voices.instructions",
    "write_speech_records": "audiollm.data.voices.speech_records",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
