"""An Audio-LLM of ours under test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from audiollm.modeling import AudioLLM
from audiollm.sources.places import find_source

from .base import AnswerSettings, ChatAnswer, ChatRequest
from .revisions import audio_llm_revision, folder_revision
from .turns import conversation_of


class AudioLLMUnderTest:
    """An Audio-LLM, asked in batches; texts only.

    Args:
        source: folder, Hub id or "mini".
        settings: how answers are generated.
        device: torch device.
        dtype: of the weights; "auto": as stored.

    Raises:
        OSError: if there is no such checkpoint.
        ValueError: if it is no Audio-LLM.
    """

    concurrency = 1
    takes_examples = True

    def __init__(self, source: str, *, settings: AnswerSettings, device: str, dtype: str = "auto") -> None:
        self._source, self.settings = source, settings
        self._model = AudioLLM.from_pretrained(
            source, device=device, dtype=dtype if dtype == "auto" else getattr(torch, dtype)
        )
        self._own_mono = self._model.processor.mono

    @property
    def decoding(self) -> dict[str, Any]:
        """See `AudioChatModel`."""
        return {**self.settings.to_dict(), "dtype": str(self._model.model.dtype).removeprefix("torch.")}

    def describe(self) -> dict[str, str | None]:
        """See `AudioChatModel`; folders are told apart by hashes of what is in them."""
        source = find_source(self._source)
        revision = audio_llm_revision(source, self._model.model.config)
        codec_path = self._model.processor.codec_path
        # An audio tokenizer inside a repository on the Hub has the repository's revision.
        inside = None if codec_path is None else folder_revision(Path(source.model) / codec_path)
        return {"name": self._source, "revision": revision, "tokenizer_revision": inside or revision}

    def answer(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """See `AudioChatModel`."""
        chats = [conversation_of(one, number) for number, one in enumerate(requests)]
        self._model.processor.mono = self.settings.mono or self._own_mono
        draws: dict[str, Any] = {}
        if self.settings.temperature:
            draws = {"do_sample": True, "temperature": self.settings.temperature, "seed": self.settings.seed}
        with torch.inference_mode():
            result = self._model.chat(chats, max_new_tokens=self.settings.max_new_tokens, **draws)
        return [
            ChatAnswer(text, is_cut=reason == "length")
            for text, reason in zip(result.texts, result.finish_reasons, strict=True)
        ]
