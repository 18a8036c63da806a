"""Audio files and waveforms.

Reading order: ``reading`` (any recording to one channel, at any rate, in flat memory) → ``opening`` (who decodes it) →
``containers`` (what a file's bytes promise) → ``writing``. What may happen to a waveform: ``degradation`` →
``augmentation``. ``pitch`` finds the fundamental frequency.
"""

from __future__ import annotations

from .opening import AudioError, AudioSource, source_name
from .reading import AudioInfo, Mono, load_audio, probe_audio, resample, stream_audio, waveform_from_array
from .writing import AudioWriter, open_audio_output, save_audio

__all__ = [
    "AudioError",
    "AudioInfo",
    "AudioSource",
    "AudioWriter",
    "Mono",
    "load_audio",
    "open_audio_output",
    "probe_audio",
    "resample",
    "save_audio",
    "source_name",
    "stream_audio",
    "waveform_from_array",
]
