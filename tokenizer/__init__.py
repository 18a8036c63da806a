"""The audio tokenizer: waveforms to codes, and where the checkpoint can, back."""

from .base import AudioTokenizer, Codes
from .codebook import Codebook
from .configuration import UniAudioTokenizerConfig
from .modeling import UniAudioTokenizer, UniAudioTokenizerOutput

__all__ = [
    "AudioTokenizer",
    "Codebook",
    "Codes",
    "UniAudioTokenizer",
    "UniAudioTokenizerConfig",
    "UniAudioTokenizerOutput",
]
