"""Codes to sound: a flow model makes a mel spectrogram of the codes, a vocoder a waveform of the mel.

Reading order: ``model.py`` (:class:`WaveformDecoder`), ``inputs.py`` (what it takes), ``batching.py`` (rows of any
number and length), ``flow/`` (codes to mel), ``vocoder/`` (mel to waveform); then ``streaming/`` (codes as they come),
``checkpoints/`` (where the weights come from) and ``attached.py`` (the decoder beside a tokenizer).
"""

from .configuration import WaveformDecoderConfig
from .inputs import VoicePrompt
from .model import WaveformDecoder

__all__ = ["VoicePrompt", "WaveformDecoder", "WaveformDecoderConfig"]
