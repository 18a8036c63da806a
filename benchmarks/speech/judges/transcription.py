"""A real speech recognizer as the judge of how well generated speech can be understood."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from audiollm.data.audio.reading import resample
from audiollm.data.pretrained.whisper import whisper_from_package

SAMPLE_RATE = 16000  # Hz, of every recognizer that transformers offers
PACKAGED = {"whisper-tiny.en": "tiny.en", "whisper-base": "base"}
"""Recognizers that come from a package index instead of a model hub, by the name to ask for them."""
MIN_SAMPLES = 400  # one window of the recognizers' features
MAX_WINDOW_SECONDS = 30


class Transcriber:
    """Speech to text.

    Args:
        source: a folder or Hub id of any speech recognizer that transformers loads, such as ``openai/whisper-tiny.en``;
            or ``whisper-tiny.en`` or ``whisper-base``, which come from a package index.
        language: language of the recordings for recognizers of several, such as ``en``. None: the recognizer decides.
        batch_size: recordings at a time.
        device: where to compute; the CPU if None.

    Raises:
        OSError: if there is no such recognizer.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        language: str | None = None,
        batch_size: int = 8,
        device: torch.device | str | None = None,
    ) -> None:
        from transformers import pipeline  # takes seconds

        self.source = os.fspath(source)
        packaged = PACKAGED.get(self.source)
        folder = self.source if packaged is None else os.fspath(whisper_from_package(packaged))
        self._batch_size = batch_size
        self._pipeline: Any = pipeline(
            "automatic-speech-recognition", model=folder, dtype=torch.float32, device=device or "cpu"
        )
        self._options: dict[str, Any] = {}
        generation = getattr(self._pipeline.model, "generation_config", None)
        if language is not None and getattr(generation, "is_multilingual", False):
            self._options["generate_kwargs"] = {"language": language, "task": "transcribe"}

    def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
        """Recognizes recordings, greedily.

        Args:
            waveforms: float in [-1, 1], ``[N_i]`` each.
            sample_rate: of all, in Hz.

        Returns:
            One text each; empty for a recording shorter than 25 ms.
        """
        speech = [resample(waveform.detach().float().cpu(), sample_rate, SAMPLE_RATE) for waveform in waveforms]
        texts = [""] * len(speech)
        # Of similar length together: recognizers of variable length are not slowed down by padding.
        usable = sorted((n for n, one in enumerate(speech) if len(one) >= MIN_SAMPLES), key=lambda n: len(speech[n]))
        for start in range(0, len(usable), self._batch_size):
            group = usable[start : start + self._batch_size]
            inputs = [{"raw": speech[n].numpy(), "sampling_rate": SAMPLE_RATE} for n in group]
            options = dict(self._options)
            if len(speech[group[-1]]) > MAX_WINDOW_SECONDS * SAMPLE_RATE:
                options |= self._long_options()
            for n, result in zip(group, self._pipeline(inputs, batch_size=len(group), **options), strict=True):
                texts[n] = result["text"].strip()
        return texts

    def _long_options(self) -> dict[str, Any]:
        """How to recognize more than a window: Whisper goes on where its last timestamp was, others by chunks."""
        is_whisper = self._pipeline.type == "seq2seq_whisper"
        return {"return_timestamps": True} if is_whisper else {"chunk_length_s": MAX_WINDOW_SECONDS}
