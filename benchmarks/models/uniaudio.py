"""A multi-stream LM of ours under test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from audiollm.sources.places import find_source
from audiollm.uniaudio import UniAudio

from .base import AnswerSettings, ChatAnswer, ChatRequest
from .revisions import folder_revision
from .turns import conversation_of


class UniAudioUnderTest:
    """A multi-stream LM, asked in batches; texts only.

    Args:
        source: its folder, or that of the run that left it.
        settings: how answers are generated.
        device: torch device.
        dtype: of the weights; "auto": as stored.

    Raises:
        ValueError: if it is no such model.
    """

    concurrency = 1
    takes_examples = True

    def __init__(self, source: str, *, settings: AnswerSettings, device: str, dtype: str = "auto") -> None:
        self._source, self.settings = source, settings
        self._model = UniAudio.from_pretrained(
            source, device=device, dtype=dtype if dtype == "auto" else getattr(torch, dtype)
        )
        self._own_mono = self._model.processor.mono

    @property
    def decoding(self) -> dict[str, Any]:
        """See `AudioChatModel`."""
        return {**self.settings.to_dict(), "dtype": str(self._model.model.dtype).removeprefix("torch.")}

    def describe(self) -> dict[str, str | None]:
        """See `AudioChatModel`; folders are told apart by hashes of what is in them."""
        return {"name": self._source, **multi_stream_revisions(self._source, self._model)}

    def answer(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """See `AudioChatModel`."""
        self._model.processor.mono = self.settings.mono or self._own_mono
        chats = [conversation_of(one, number) for number, one in enumerate(requests)]
        with torch.inference_mode():
            answers = self._model.chat(
                chats,
                max_new_tokens=self.settings.max_new_tokens,
                temperature=self.settings.temperature,
                seed=self.settings.seed,
            )
        return [
            ChatAnswer(text, is_cut=reason == "length")
            for text, reason in zip(answers.texts, answers.finish_reasons, strict=True)
        ]


def multi_stream_revisions(source: str, model: UniAudio) -> dict[str, str | None]:
    """Hashes of the model and of its audio tokenizer.

    Args:
        source: folder of the model or of its run.
        model: what was loaded from there.
    """
    folder, codec_path = find_source(source).model, model.processor.codec_path
    inside = None if codec_path is None else folder_revision(Path(folder) / codec_path)
    return {"revision": folder_revision(folder), "tokenizer_revision": inside}
