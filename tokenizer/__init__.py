"""The audio tokenizer: waveforms to codes, and where the checkpoint can, back."""

from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig
from audiollm.tokenizer.decoder.inputs import VoicePrompt
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.quantizer.codebook import Codebook
from audiollm.tokenizer.supervision.model import SupervisedOutput, SupervisedTokenizer
from audiollm.tokenizer.supervision.text import SapText
from audiollm.tokenizer.supervision.text_decoder import SapDecoder

from .base import AudioTokenizer, Codes
from .configuration import UniAudioTokenizerConfig
from .modeling import UniAudioTokenizer, UniAudioTokenizerOutput

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
