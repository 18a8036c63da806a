"""Generation of text and audio by a plain causal LM.

Reading order: ``settings`` (checked) → ``planning`` and ``plan`` (what they come down to) → ``request`` (one call of
transformers' ``generate``) → ``grammar`` (which tokens may follow) → ``narrow_head`` and ``cache`` (no more work than
that takes) → ``sampling`` (which of them is drawn) → ``result`` → ``decoding`` (codes to sound) → ``streaming`` (all of
it while it is generated). `AudioLLM` in ``audiollm/modeling.py`` is the way in.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "decoding": ["DecodingSettings", "SpeechDecoder", "voice_prompt"],
        "plan": ["AnswerPlan", "ContextError"],
        "result": ["FinishReason", "GenerationResult"],
        "sampling": ["SamplingSettings"],
        "settings": ["GenerationSettings"],
        "streaming": ["AnswerStream", "SegmentStreamer", "StreamedAudio", "StreamedCodes", "StreamedText"],
    },
)
