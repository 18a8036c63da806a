"""Transcribing recordings of any length: their pieces go to the model in batches, in memory that does not grow."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from audiollm.chat.input import AudioSource, audio_parts
from audiollm.data.audio.channels import Mono, checked_mono
from audiollm.data.conversation.types import AudioPart, Conversation, Message, TextPart
from audiollm.generation.plan import context_of
from audiollm.generation.planning import TEXT_TOKENS
from audiollm.generation.settings import GenerationSettings
from audiollm.modeling import AudioLLM
from audiollm.processing.processor import AudioLLMProcessor
from audiollm.prompts import instruction

from .activity import SILERO_RATE, ActivityMeasure, activity_of
from .pieces import LONGEST_SECONDS, SHORTEST_SECONDS, Piece, check_longest, pieces_of
from .transcript import SegmentReason, Transcript, TranscriptSegment

BLOCK_SECONDS = 10.0  # of the recording that are decoded at a time
BATCH_SIZE = 4  # pieces that are transcribed together
NOT_ASKED: tuple[str, SegmentReason] = ("", "silent")


class Transcriber:
    """Writes down what is said in recordings of any length; all settings are checked before the first one.

    Args:
        model: an Audio-LLM.
        prompt: what the model is asked about each piece; None: the standard instruction for transcribing.
        mono: which waveform of several channels: "first", or their "mean".
        longest_seconds: a longer recording is cut at its pauses into pieces of at most this length; None: 28, or what
            the model's context holds beside the answer.
        pauses: what tells them: "level" for the loudness, "silero" for Silero's voice activity detector.
        batch_size: how many pieces the model gets together.
        generation: as for `AudioLLM.generate`; ``max_new_tokens`` is meant for each piece.

    Raises:
        ValueError: a setting is refused, asks for anything but one text, or the context does not hold the pieces.
        ImportError: what ``pauses`` needs is missing.
    """

    def __init__(
        self,
        model: AudioLLM,
        *,
        prompt: str | None = None,
        mono: Mono = "first",
        longest_seconds: float | None = None,
        pauses: ActivityMeasure = "level",
        batch_size: int = BATCH_SIZE,
        **generation: Any,
    ) -> None:
        check_settings(longest_seconds=longest_seconds, pauses=pauses, batch_size=batch_size, **generation)
        checked_mono(mono)
        self._model, self._mono, self._pauses = model, mono, pauses
        self._batch_size, self._generation = batch_size, generation
        self._prompt = prompt or instruction("transcribe")
        self._longest_seconds = longest_piece(
            model.processor,
            context_of(model.model.config),
            self._prompt,
            longest_seconds=longest_seconds,
            max_new_tokens=generation.get("max_new_tokens"),
        )

    def segments(self, audio: AudioSource, *, sample_rate: int | None = None) -> Iterator[TranscriptSegment]:
        """Writes down what is said in a recording, segment by segment.

        A piece in which nothing is heard is not put to the model, which might write what nobody said; it becomes a
        segment without text.

        Args:
            audio: path, bytes of a file, or samples.
            sample_rate: rate in Hz of samples.

        Raises:
            AudioError: the recording cannot be used.
            ValueError: the audio is codes or several recordings.
        """
        part = _recording(audio, sample_rate)
        rate = part.probe().sample_rate
        return self._segments((piece, rate) for piece in self._pieces(part, rate))

    def transcripts(self, recordings: Iterable[tuple[Tensor, int]]) -> Iterator[Transcript]:
        """Writes down what is said in many recordings; pieces of several go to the model together.

        Args:
            recordings: samples, float ``[N]`` or ``[N, channels]``, and their rate in Hz; read as they are needed.

        Yields:
            A transcript for each, in their order.
        """
        segments: dict[int, list[TranscriptSegment]] = {}
        owners: deque[int] = deque()  # of the pieces that have gone to the model

        def pieces() -> Iterator[tuple[Piece, int]]:
            for number, (waveform, rate) in enumerate(recordings):
                segments[number] = []
                for piece in self._pieces(_recording(waveform, rate), rate):
                    owners.append(number)
                    yield piece, rate

        for segment in self._segments(pieces()):
            owner = owners.popleft()
            # The pieces of a recording follow each other: with one of a later recording the earlier ones are complete.
            for number in [number for number in segments if number < owner]:
                yield Transcript(segments.pop(number))
            segments[owner].append(segment)
        for number in list(segments):
            yield Transcript(segments.pop(number))

    def _pieces(self, part: AudioPart, sample_rate: int) -> Iterator[Piece]:
        blocks = _blocks(part, self._mono)
        return pieces_of(blocks, sample_rate, longest_seconds=self._longest_seconds, pauses=self._pauses)

    def _segments(self, pieces: Iterator[tuple[Piece, int]]) -> Iterator[TranscriptSegment]:
        while batch := list(itertools.islice(pieces, self._batch_size)):
            answers = iter(self._answers([(piece, rate) for piece, rate in batch if piece.is_active]))
            for piece, _ in batch:
                yield TranscriptSegment(piece.start, piece.end, *(next(answers) if piece.is_active else NOT_ASKED))

    def _answers(self, pieces: list[tuple[Piece, int]]) -> list[tuple[str, SegmentReason]]:
        """Text of each piece, and why it ended."""
        if not pieces:
            return []
        questions = [_question(piece, rate, self._prompt) for piece, rate in pieces]
        result = self._model.chat(questions, **self._generation)
        return list(zip(result.texts, result.finish_reasons, strict=True))


def transcribe(model: AudioLLM, audio: AudioSource, *, sample_rate: int | None = None, **settings: Any) -> Transcript:
    """Writes down what is said in a recording of any length.

    Args:
        model: an Audio-LLM.
        audio: path, bytes of a file, or samples.
        sample_rate: rate in Hz of samples.
        settings: those of `Transcriber`.

    Raises:
        AudioError: the recording cannot be used.
        ValueError: the audio is codes or several recordings, or as for `Transcriber`.
        ImportError: as for `Transcriber`.
    """
    return Transcript(list(transcribe_stream(model, audio, sample_rate=sample_rate, **settings)))


def transcribe_stream(
    model: AudioLLM, audio: AudioSource, *, sample_rate: int | None = None, **settings: Any
) -> Iterator[TranscriptSegment]:
    """Writes down what is said in a recording, segment by segment; arguments and errors as for `transcribe`."""
    return Transcriber(model, **settings).segments(audio, sample_rate=sample_rate)


def longest_piece(
    processor: AudioLLMProcessor,
    context: int | None,
    prompt: str,
    *,
    longest_seconds: float | None = None,
    max_new_tokens: int | None = None,
) -> float:
    """The longest piece of a recording in seconds, such that a context holds it beside the question and the answer.

    Args:
        processor: of the Audio-LLM.
        context: the most tokens; None for no limit.
        prompt: the question.
        longest_seconds: what is asked for; None: as much as there is, but at most `LONGEST_SECONDS`.
        max_new_tokens: of the answer; None: `TEXT_TOKENS`.

    Raises:
        ValueError: it holds less than what is asked for, or less than a second.
    """
    if context is None:
        return longest_seconds or LONGEST_SECONDS
    max_new_tokens = TEXT_TOKENS if max_new_tokens is None else max_new_tokens
    stand_in, layout = processor.vocabulary.shortest_clip, processor.vocabulary.layout
    question = Conversation("question", [Message("user", [AudioPart(codes=stand_in), TextPart(prompt)])])
    inputs: Any = processor.apply_chat_template(question, add_generation_prompt=True)
    num_other = inputs["input_ids"].shape[1] - len(stand_in)
    room = context - num_other - max_new_tokens
    frames = room if layout is None else layout.whole_frames(room)
    held = frames / processor.audio_tokenizer.frame_rate * (1 if layout is None else layout.num_codebooks)
    left = (
        f"the context holds {context} tokens, of which the question takes {num_other} and the answer "
        f"max_new_tokens={max_new_tokens}"
    )
    if held < SHORTEST_SECONDS:
        raise ValueError(f"{left}: that leaves no second of audio; ask for shorter answers")
    if longest_seconds is not None and longest_seconds > held:
        raise ValueError(f"longest_seconds={longest_seconds:g}: {left}: that leaves {held:.1f} s of audio")
    return min(LONGEST_SECONDS, held) if longest_seconds is None else longest_seconds


def check_settings(
    *, longest_seconds: float | None, pauses: ActivityMeasure, batch_size: int, **generation: Any
) -> None:
    """Refuses what no model takes, before one is loaded; arguments as for `Transcriber`.

    Raises:
        ValueError: names the setting.
        ImportError: what ``pauses`` needs is missing.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: use 1 or more")
    if longest_seconds is not None:
        check_longest(longest_seconds)
    activity_of(pauses, SILERO_RATE)
    settings = GenerationSettings.of(generation)
    for name, value, only in (
        ("modalities", settings.modalities, {"text"}),
        ("num_return_sequences", settings.transformers.get("num_return_sequences", 1), 1),
    ):
        if value != only:
            raise ValueError(f"{name}={generation[name]!r}: a transcript is one text")


def _recording(audio: AudioSource, sample_rate: int | None) -> AudioPart:
    parts = audio_parts(audio, sample_rate)
    if len(parts) != 1:
        raise ValueError(f"{len(parts)} recordings are given: transcribe them one by one")
    if parts[0].codes is not None:
        raise ValueError(
            "codes cannot be cut at pauses: give the recording, or ask about the codes with AudioLLM.ask()"
        )
    return parts[0]


def _blocks(part: AudioPart, mono: Mono) -> Iterable[Tensor]:
    if part.array is None:
        return part.stream(mono, BLOCK_SECONDS)
    return [part.load(mono=mono)[0]]


def _question(piece: Piece, sample_rate: int, prompt: str) -> Conversation:
    audio = AudioPart(array=piece.waveform.numpy(), sampling_rate=sample_rate)
    name = f"piece from {piece.start:.2f} s"
    return Conversation(name, [Message("user", [audio, TextPart(prompt)])])
