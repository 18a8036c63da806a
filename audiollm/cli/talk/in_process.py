"""A chat with a model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audiollm.generation.streaming import AnswerStream, StreamedText
from audiollm.modeling import AudioLLM
from audiollm.speaking import speak_stream

from .turns import AnswerError, End, Pieces, Sound, Turn, answered


@dataclass(frozen=True, eq=False)
class InProcess:
    """Answers by a model.

    Attributes:
        model: an Audio-LLM.
        name: what it is called.
        generation: settings of every answer: ``max_new_tokens``, ``temperature`` and ``seed``, where given.
    """

    model: AudioLLM
    name: str
    generation: dict[str, Any]

    @property
    def voices(self) -> Sequence[str]:
        return ()

    def answer(self, turns: Sequence[Turn], *, is_spoken: bool, voice: str | None) -> Pieces:
        settings = dict(self.generation)
        if is_spoken:
            self._check_speaks()
        # A model that speaks in turns was taught to read out, not to answer so: its answer is text, and read out then.
        is_spoken = is_spoken and not self.model.speaks_in_turns
        if is_spoken:
            settings["modalities"] = {"text", "audio"}
        elif "temperature" not in settings:
            settings.pop("seed", None)  # nothing is drawn
        messages: list[dict[str, Any]] = []
        for turn in [*answered(turns[:-1]), turns[-1]]:
            messages.append({"role": "user", "content": _content(turn)})
            if turn is not turns[-1]:
                messages.append({"role": "assistant", "content": turn.answer})
        if is_spoken and voice:
            messages[-1]["content"].append({"type": "text", "text": f"\n({voice})"})
        yield from _pieces(self.model.stream_chat(messages, **settings))

    def say(self, text: str, *, voice: str | None) -> Pieces:
        self._check_speaks()
        settings = {name: value for name, value in self.generation.items() if name != "max_new_tokens"}
        yield from _pieces(speak_stream(self.model, text, voice, **settings))

    def _check_speaks(self) -> None:
        processor = self.model.processor
        if not (processor.has_audio_tokenizer and processor.audio_tokenizer.can_decode):
            raise AnswerError(f"{self.name} has no waveform decoder, so it answers in text alone: /speak off")


def _content(turn: Turn) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "audio", "bytes": one.content} for one in turn.recordings]
    return parts + ([{"type": "text", "text": turn.question}] if turn.question else [])


def _pieces(stream: AnswerStream) -> Pieces:
    with stream:
        for event in stream:
            if isinstance(event, StreamedText):
                yield event.text
            else:
                yield Sound(event.waveform.numpy(), event.sample_rate)
    assert stream.result is not None  # it is exhausted
    yield End("length" if stream.result.finish_reasons[0] == "length" else "stop")
