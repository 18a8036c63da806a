"""The audio tokenizer: waveforms to codes, and where the checkpoint can, back.

Reading order: ``base.py`` (what a language model needs of any tokenizer), ``modeling.py`` (:class:`UniAudioTokenizer`),
``signal/``, ``encoder/`` and ``quantizer/`` (from waveform to code), ``decoder/`` (from code to waveform),
``checkpoints/`` (where weights come from), ``supervision/`` (how the tokenizer is trained).
"""

from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig
from audiollm.tokenizer.decoder.inputs import VoicePrompt
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.quantizer.codebook import Codebook
from audiollm.tokenizer.quantizer.kmeans import CodebookFit
from audiollm.tokenizer.supervision.model import SupervisedOutput, SupervisedTokenizer
from audiollm.tokenizer.supervision.text import SapText
from audiollm.tokenizer.supervision.text_decoder import SapDecoder

from .base import AudioTokenizer, Codes
from .configuration import UniAudioTokenizerConfig
from .modeling import UniAudioTokenizer, UniAudioTokenizerOutput

__all__ = [
    "AudioTokenizer",
    "Codebook",
    "CodebookFit",
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
