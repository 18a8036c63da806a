"""audiollm: turn a text LLM into one that listens and speaks.

Reading order: ``vocabulary`` (codes and token ids) → ``processing`` with ``chat/`` (messages to ids and back) →
``modeling`` with ``generation/`` (ids to answers) → ``speaking`` and ``reconstruction`` (sound) → ``cli/``.
``tokenizer``, ``data``, ``training`` and ``benchmarks`` are the top-level folders of these names.

Public names are imported on first use (PEP 562), so that ``import audiollm`` is instant and
``import audiollm.tokenizer`` never pulls in the LLM stack. The auto classes of transformers find ours from here on.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .huggingface.registration import register

__version__ = "0.1.0"

_HOME_OF = {
    "AnyToAnyPipeline": "audiollm.huggingface.pipelines",
    "AudioLLM": "audiollm.modeling",
    "AudioLLMProcessor": "audiollm.processing",
    "AudioVocabulary": "audiollm.vocabulary",
    "Codes": "audiollm.tokenizer.base",
    "SpeechRecognitionPipeline": "audiollm.huggingface.pipelines",
    "TextToSpeechPipeline": "audiollm.huggingface.pipelines",
    "UniAudioLM": "audiollm.uniaudio.modeling",
    "UniAudioLMConfig": "audiollm.uniaudio.configuration",
    "UniAudioTokenizer": "audiollm.tokenizer.modeling",
    "UniAudioTokenizerConfig": "audiollm.tokenizer.configuration",
    "WaveformDecoder": "audiollm.tokenizer.decoder.model",
    "extend": "audiollm.vocabulary",
    "load_audio": "audiollm.data.audio.reading",
    "load_conversations": "audiollm.data.conversation.loading",
}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'audiollm' has no attribute {name!r}; public names are {', '.join(__all__)}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__


register()
