"""Rewards that listen: the words that are heard in an answer, and the voice that says them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiollm.benchmarks.metrics import load_metric
from audiollm.benchmarks.speech.judges.attributes import JUDGED, AttributeJudge, open_judge, read_attributes
from audiollm.benchmarks.speech.judges.recognizers import DEFAULT_RECOGNIZERS, SpeechRecognizer, load_recognizer
from audiollm.data.audio.writing import save_audio
from audiollm.data.conversation.types import Conversation
from audiollm.data.voices.attributes import VocalAttributes
from audiollm.data.voices.speech_records import text_to_be_said

from .base import Answer
from .sounds import AnswerSounds


class SpokenWords:
    """1 minus the word error rate of what a recognizer hears, at least 0; an answer without sound gets 0.

    Says nothing about records that tell no text: a ``text`` of their own, or the request to speak one.

    Args:
        sounds: makes answers audible.
        recognizer: name, as `audiollm.benchmarks.speech.judges.recognizers.load_recognizer` takes it.
        language: of the texts.
        normalizer: of both texts before they are compared: "english", "basic" or "none".
        unit: "word", or "character" for languages written without spaces.
        device: where the recognizer computes.
    """

    def __init__(
        self,
        sounds: AnswerSounds,
        *,
        recognizer: str | SpeechRecognizer = DEFAULT_RECOGNIZERS["en"],
        language: str | None = "en",
        normalizer: str = "english",
        unit: str = "word",
        device: str = "cpu",
    ) -> None:
        sounds.check()
        self._sounds = sounds
        if isinstance(recognizer, str):
            recognizer = load_recognizer(recognizer, language=language, device=device)
        self._recognizer = recognizer
        self._metric = load_metric("wer")
        self._options = {"normalizer": normalizer, "unit": unit}

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """See `Reward`."""
        waveforms = self._sounds.of(answers)
        heard = [number for number, waveform in enumerate(waveforms) if waveform is not None]
        sounds = [waveform for waveform in waveforms if waveform is not None]
        texts = dict(zip(heard, self._recognizer.transcribe(sounds, self._sounds.sample_rate), strict=True))
        return [self._worth(answer, texts.get(number)) for number, answer in enumerate(answers)]

    def _worth(self, answer: Answer, heard: str | None) -> float | None:
        wanted = text_to_be_said(answer.conversation)
        if wanted is None:
            return None
        if heard is None:
            return 0.0
        rate = self._metric.compute(predictions=[heard], references=[wanted], **self._options)["wer"]
        return None if rate is None else 1.0 - min(1.0, rate)  # None: the text holds no word


class VoiceMatch:
    """The share of the voice attributes that were asked for and that a judge hears; 0 for an answer without sound.

    Says nothing about records whose ``voice`` names no gender, age or emotion.

    Args:
        sounds: makes answers audible.
        judge: a training checkpoint of an audio tokenizer, or a chat model that hears, as
            `audiollm.benchmarks.speech.judges.attributes.open_judge` takes them.
        device: where a chat model of this machine computes.
    """

    def __init__(self, sounds: AnswerSounds, *, judge: str | AttributeJudge, device: str = "cpu") -> None:
        sounds.check()
        self._sounds = sounds
        self._judge = open_judge(judge, device) if isinstance(judge, str) else judge

    def __call__(self, answers: Sequence[Answer]) -> list[float | None]:
        """See `Reward`."""
        with tempfile.TemporaryDirectory(prefix="audiollm-voices-") as folder:
            return [
                self._worth(wanted_voice(answer.conversation), waveform, Path(folder) / f"{number}.wav")
                for number, (answer, waveform) in enumerate(zip(answers, self._sounds.of(answers), strict=True))
            ]

    def _worth(self, wanted: Mapping[str, str], waveform: Any, path: Path) -> float | None:
        if not wanted:
            return None
        if waveform is None:
            return 0.0
        save_audio(path, waveform, self._sounds.sample_rate)
        heard = read_attributes(self._judge.describe(path).text).values
        if heard is None:  # words that nothing can be read from say of no attribute that it is there
            return 0.0
        return sum(heard[name] == value for name, value in wanted.items()) / len(wanted)


def wanted_voice(conversation: Conversation) -> dict[str, str]:
    """The attributes that a record asks for and that judges can tell."""
    voice = conversation.metadata.get("voice")
    if not isinstance(voice, Mapping):
        return {}
    given = VocalAttributes.from_record(voice)[0].given
    return {name: given[name] for name in JUDGED if name in given}
