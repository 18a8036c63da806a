"""Any Audio-LLM under test that transformers loads, such as Qwen2-Audio, Qwen2.5-Omni or Voxtral."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from audiollm.data.audio.reading import load_audio
from audiollm.data.chat.local import LocalCheckpoint

from .base import AnswerSettings, ChatAnswer, ChatRequest
from .revisions import checkpoint_revision

logger = logging.getLogger(__name__)


class TransformersUnderTest:
    """A model that hears and answers, asked in batches: recording first, then the question, no system prompt.

    Args:
        source: folder or Hub id of a model whose processor has a chat template.
        settings: how answers are generated.
        device: torch device.
        dtype: of the weights; "auto": as stored.

    Raises:
        OSError: if there is no such checkpoint.
        ValueError: if the model hears nothing or has no chat template.
    """

    concurrency = 1

    def __init__(self, source: str, *, settings: AnswerSettings, device: str, dtype: str = "auto") -> None:
        self._source, self.settings = source, settings
        self._checkpoint = LocalCheckpoint(source, device, hears=True, dtype=dtype)
        self._revision = checkpoint_revision(source, self._checkpoint.config)

    @property
    def decoding(self) -> dict[str, Any]:
        """See `AudioChatModel`."""
        return {**self.settings.to_dict(), "dtype": str(self._checkpoint.model.dtype).removeprefix("torch.")}

    def describe(self) -> dict[str, str | None]:
        """See `AudioChatModel`; text tokenizer and feature extractor are part of the revision."""
        return {"name": self._source, "revision": self._revision, "tokenizer_revision": self._revision}

    def answer(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """See `AudioChatModel`."""
        recordings = [self._recording(request) for request in requests]
        answers = self._checkpoint.generate(
            [_chat(waveform, request.text) for (waveform, _), request in zip(recordings, requests, strict=True)],
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            seed=self.settings.seed,
            pads_one=True,  # what is answered must not depend on how many are asked at a time
        )
        return [
            ChatAnswer(answer.text, is_cut=answer.is_cut, is_recording_cut=is_cut)
            for answer, (_, is_cut) in zip(answers, recordings, strict=True)
        ]

    def _recording(self, request: ChatRequest) -> tuple[Tensor, bool]:
        """The waveform of a request, and whether the model hears only its beginning."""
        waveform, _ = load_audio(request.audio, self._checkpoint.sample_rate, self.settings.mono or "mean")
        max_samples = self._checkpoint.max_samples
        if max_samples is None or len(waveform) <= max_samples:
            return waveform, False
        logger.warning(
            "%s hears only the first %g s of a recording of %.1f s",
            self._source,
            max_samples / self._checkpoint.sample_rate,
            len(waveform) / self._checkpoint.sample_rate,
        )
        return waveform, True


def _chat(waveform: Tensor, text: str) -> list[dict[str, Any]]:
    content = [{"type": "audio", "audio": waveform.numpy()}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]
