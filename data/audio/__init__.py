"""Audio files and waveforms.

Reading order: ``reading`` (any recording, or a segment of it, to one channel, at any rate, in flat memory) →
``opening`` (who decodes it; ``sources``, ``segments``, ``channels``, ``damage`` and ``limits`` say what is asked for) →
``integrity`` (what a file's bytes hold and promise) → ``decoders`` → ``waveforms`` (arrays, resampling) → ``writing``.
What may happen to a waveform: ``degradation`` → ``augmentation``. ``pitch`` finds the fundamental frequency.
"""

from __future__ import annotations

from .channels import Mono
from .damage import AudioDamage, OnDamaged
from .limits import AudioLimitError, AudioLimits
from .reading import AudioInfo, load_audio, probe_audio, stream_audio
from .sources import AudioError, AudioSource, source_name
from .waveforms import resample, waveform_from_array
from .writing import AudioWriter, open_audio_output, save_audio

__all__ = [
    "AudioDamage",
    "AudioError",
    "AudioInfo",
    "AudioLimitError",
    "AudioLimits",
    "AudioSource",
    "AudioWriter",
    "Mono",
    "OnDamaged",
    "load_audio",
    "open_audio_output",
    "probe_audio",
    "resample",
    "save_audio",
    "source_name",
    "stream_audio",
    "waveform_from_array",
]
