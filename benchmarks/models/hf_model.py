"""Any Audio-LLM under test that transformers loads, such as Qwen2-Audio, Qwen2.5-Omni or Voxtral."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from audiollm.data.audio.reading import load_audio

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
        from transformers import AutoModelForMultimodalLM, AutoProcessor

        self._source, self.settings = source, settings
        self._processor: Any = AutoProcessor.from_pretrained(source)
        extractor = getattr(self._processor, "feature_extractor", None)
        if extractor is None or getattr(self._processor, "chat_template", None) is None:
            missing = "feature extractor for audio" if extractor is None else "chat template"
            raise ValueError(f"{source} has no {missing}: use an instruction-tuned model that hears")
        self._processor.tokenizer.padding_side = "left"  # answers start where the prompts of a batch end
        self._sample_rate: int = extractor.sampling_rate
        # Extractors of the Whisper kind cut what is longer than their window without a word.
        self._max_samples: int | None = getattr(extractor, "n_samples", None)
        model: Any = AutoModelForMultimodalLM.from_pretrained(source, dtype=dtype)
        self._revision = checkpoint_revision(source, model.config)
        # Models that also speak hold the part that writes as their `thinker`.
        self._model = getattr(model, "thinker", model).to(device).eval()
        ends = self._model.generation_config.eos_token_id
        self._end_ids = torch.tensor(ends if ends is not None else [], dtype=torch.long).reshape(-1)

    @property
    def decoding(self) -> dict[str, Any]:
        """See `AudioChatModel`."""
        return {**self.settings.to_dict(), "dtype": str(self._model.dtype).removeprefix("torch.")}

    def describe(self) -> dict[str, str | None]:
        """See `AudioChatModel`; text tokenizer and feature extractor are part of the revision."""
        return {"name": self._source, "revision": self._revision, "tokenizer_revision": self._revision}

    def answer(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """See `AudioChatModel`."""
        recordings = [self._recording(request) for request in requests]
        inputs = self._processor.apply_chat_template(
            [_chat(waveform, request.text) for (waveform, _), request in zip(recordings, requests, strict=True)],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self._model.device, self._model.dtype)
        draws: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if self.settings.temperature:
            torch.manual_seed(self.settings.seed)
            draws = {"do_sample": True, "temperature": self.settings.temperature}
        with torch.inference_mode():
            token_ids = self._model.generate(**inputs, max_new_tokens=self.settings.max_new_tokens, **draws)
        answers = token_ids[:, inputs["input_ids"].shape[1] :]
        texts: list[str] = self._processor.batch_decode(answers, skip_special_tokens=True)
        has_ended = torch.isin(answers, self._end_ids.to(answers.device)).any(1).tolist()
        return [
            ChatAnswer(text, is_cut=not ended, is_recording_cut=is_cut)
            for text, ended, (_, is_cut) in zip(texts, has_ended, recordings, strict=True)
        ]

    def _recording(self, request: ChatRequest) -> tuple[Tensor, bool]:
        """The waveform of a request, and whether the model hears only its beginning."""
        waveform, _ = load_audio(request.audio, self._sample_rate)
        if self._max_samples is None or len(waveform) <= self._max_samples:
            return waveform, False
        logger.warning(
            "%s hears only the first %g s of a recording of %.1f s",
            self._source,
            self._max_samples / self._sample_rate,
            len(waveform) / self._sample_rate,
        )
        return waveform, True


def _chat(waveform: Tensor, text: str) -> list[dict[str, Any]]:
    content = [{"type": "audio", "audio": waveform.numpy()}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]
