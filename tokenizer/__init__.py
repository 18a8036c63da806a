"""The audio tokenizer: waveforms to codes, and where the checkpoint can, back."""

from .base import AudioTokenizer, Codes
from .codebook import Codebook
from .configuration import UniAudioTokenizerConfig
from .decoder_configuration import WaveformDecoderConfig
from .decoder_inputs import VoicePrompt
from .modeling import UniAudioTokenizer, UniAudioTokenizerOutput
from .sap_decoder import SapDecoder
from .sap_text import SapText
from .supervised import SupervisedOutput, SupervisedTokenizer
from .waveform_decoder import WaveformDecoder

__all__ = [
    "AudioTokenizer",
    "Codebook",
    "Codes",
    "SapDecoder",
    "SapText",
    "SupervisedOutput",
    "SupervisedTokenizer",
    "UniAudioTokenizer",
    "UniAudioTokenizerConfig",
    "UniAudioTokenizerOutput",
    "VoicePrompt",
    "WaveformDecoder",
    "WaveformDecoderConfig",
]
