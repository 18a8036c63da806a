"""Generation of text and audio by a plain causal LM.

Reading order: ``settings`` (checked) → ``plan`` (what they come down to) → ``request`` (one call of transformers'
``generate``) → ``grammar`` (which tokens may
follow) → ``narrow_head`` and ``cache`` (no more work than that takes) → ``sampling`` (which of them is drawn) →
``result`` → ``decoding`` (codes to sound) → ``streaming`` (all of it while it is generated). `AudioLLM` in
``audiollm/modeling.py`` is the way in.
"""

from .decoding import DecodingSettings, SpeechDecoder, voice_prompt
from .plan import ContextError
from .result import FinishReason, GenerationResult
from .sampling import SamplingSettings
from .settings import GenerationSettings
from .streaming import AnswerStream, SegmentStreamer, StreamedAudio, StreamedCodes, StreamedText

__all__ = [
    "AnswerStream",
    "ContextError",
    "DecodingSettings",
    "FinishReason",
    "GenerationResult",
    "GenerationSettings",
    "SamplingSettings",
    "SegmentStreamer",
    "SpeechDecoder",
    "StreamedAudio",
    "StreamedCodes",
    "StreamedText",
    "voice_prompt",
]
