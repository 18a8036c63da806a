"""Answers made audible: every reward that listens hears the same waveforms, decoded once."""
# Shapes: T codes of one segment, N samples.

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from audiollm.generation.decoding import DecodingSettings, SpeechDecoder
from audiollm.modeling import AudioLLM

from .base import Answer


class AnswerSounds:
    """Decodes what answers say.

    Args:
        audio_llm: its audio tokenizer decodes; it is loaded when the first reward asks for sound.
        seed: of the decoder's noise: the same codes always sound the same.
        steps: steps of its flow model; None: its default.
    """

    def __init__(self, audio_llm: AudioLLM, seed: int = 0, steps: int | None = None) -> None:
        self._audio_llm = audio_llm
        self._settings = DecodingSettings(seed=seed, steps=steps)
        self._heard: tuple[Sequence[Answer], list[Tensor | None]] | None = None

    @cached_property
    def _decoder(self) -> SpeechDecoder:
        return SpeechDecoder(
            self._audio_llm.processor.audio_tokenizer,
            self._settings,
            joins_segments=self._audio_llm.speaks_in_turns,
        )

    def check(self) -> None:
        """Loads the decoder.

        Raises:
            ValueError: if the model cannot speak.
        """
        _ = self._decoder

    @property
    def sample_rate(self) -> int:
        """Of all sounds, in Hz."""
        return self._decoder.sample_rate

    def of(self, answers: Sequence[Answer]) -> list[Tensor | None]:
        """What is heard of each answer, float32 ``[N]``, its segments one after the other; None of one without sound.

        Answers that were asked for last are not decoded again.
        """
        if self._heard is None or self._heard[0] is not answers:
            self._heard = (answers, self._decoded(answers))
        return self._heard[1]

    def _decoded(self, answers: Sequence[Answer]) -> list[Tensor | None]:
        rows = [answer.spoken_codes or [] for answer in answers]
        with torch.no_grad():
            sounds = self._decoder.decode(rows)
        return [torch.cat([sound.cpu() for sound in row]) if row else None for row in sounds]
