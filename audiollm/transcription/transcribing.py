"""Transcribing recordings of any length: their pieces go to the model in batches, in memory that does not grow."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from audiollm.chat.input import AudioSource, audio_parts
from audiollm.data.audio.channels import Mono
from audiollm.data.conversation.types import AudioPart, Conversation, Message, TextPart
from audiollm.generation.request import TEXT_TOKENS
from audiollm.modeling import AudioLLM
from audiollm.prompts import instruction

from .activity import ActivityMeasure
from .pieces import LONGEST_SECONDS, Piece, pieces_of
from .transcript import SegmentReason, Transcript, TranscriptSegment

BLOCK_SECONDS = 10.0  # of the recording that are decoded at a time
BATCH_SIZE = 4  # pieces that are transcribed together
NOT_ASKED: tuple[str, SegmentReason] = ("", "silent")


def transcribe(
    model: AudioLLM,
    audio: AudioSource,
    *,
    prompt: str | None = None,
    sample_rate: int | None = None,
    mono: Mono = "first",
    longest_seconds: float | None = None,
    pauses: ActivityMeasure = "level",
    batch_size: int = BATCH_SIZE,
    **generation: Any,
) -> Transcript:
    """Writes down what is said in a recording of any length.

    Args:
        model: an Audio-LLM.
        audio: path, bytes of a file, or samples.
        prompt: what the model is asked about each piece; None: the standard instruction for transcribing.
        sample_rate: rate in Hz of samples.
        mono: which waveform of several channels: "first", or their "mean".
        longest_seconds: a longer recording is cut at its pauses into pieces of at most this length; None: 28, or what
            the model's context holds beside the answer.
        pauses: what tells them: "level" for the loudness, "silero" for Silero's voice activity detector.
        batch_size: how many pieces the model gets together.
        generation: as for `AudioLLM.generate`; ``max_new_tokens`` is meant for each piece.

    Raises:
        AudioError: if the recording cannot be used.
        ValueError: if the audio is codes or several recordings, the context holds no second of audio, or a setting is
            refused.
        ImportError: if what ``pauses`` needs is missing.
    """
    return Transcript(
        list(
            transcribe_stream(
                model,
                audio,
                prompt=prompt,
                sample_rate=sample_rate,
                mono=mono,
                longest_seconds=longest_seconds,
                pauses=pauses,
                batch_size=batch_size,
                **generation,
            )
        )
    )


def transcribe_stream(
    model: AudioLLM,
    audio: AudioSource,
    *,
    prompt: str | None = None,
    sample_rate: int | None = None,
    mono: Mono = "first",
    longest_seconds: float | None = None,
    pauses: ActivityMeasure = "level",
    batch_size: int = BATCH_SIZE,
    **generation: Any,
) -> Iterator[TranscriptSegment]:
    """Writes down what is said in a recording, segment by segment; arguments and errors as for `transcribe`.

    A piece in which nothing is heard is not put to the model, which might write what nobody said; it becomes a segment
    without text.

    Raises:
        ValueError: as for `transcribe`, and if answers in anything but one text per piece are asked for.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: use 1 or more")
    for name, only in (("modalities", ("text",)), ("num_return_sequences", 1)):
        if name in generation and generation[name] not in (only, set(only) if isinstance(only, tuple) else only):
            raise ValueError(f"{name}={generation[name]!r}: a transcript is one text")
    part = _recording(audio, sample_rate)
    rate = part.probe().sample_rate
    prompt = prompt or instruction("transcribe")
    if longest_seconds is None:
        longest_seconds = min(LONGEST_SECONDS, _seconds_in_context(model, prompt, generation.get("max_new_tokens")))
    pieces = pieces_of(_blocks(part, mono), rate, longest_seconds=longest_seconds, pauses=pauses)
    return _segments(model, pieces, rate, prompt, batch_size, generation)


def _recording(audio: AudioSource, sample_rate: int | None) -> AudioPart:
    parts = audio_parts(audio, sample_rate)
    if len(parts) != 1:
        raise ValueError(f"{len(parts)} recordings are given: transcribe them one by one")
    if parts[0].codes is not None:
        raise ValueError(
            "codes cannot be cut at pauses: give the recording, or ask about the codes with AudioLLM.ask()"
        )
    return parts[0]


def _seconds_in_context(model: AudioLLM, prompt: str, max_new_tokens: int | None) -> float:
    """How much audio the context holds beside the question and the longest answer.

    Raises:
        ValueError: less than a second.
    """
    context = getattr(model.model.config.get_text_config(), "max_position_embeddings", None)
    if context is None:
        return LONGEST_SECONDS
    max_new_tokens = TEXT_TOKENS if max_new_tokens is None else max_new_tokens
    question = Conversation("question", [Message("user", [AudioPart(codes=[0]), TextPart(prompt)])])
    inputs: Any = model.processor.apply_chat_template(question, add_generation_prompt=True)
    num_other = inputs["input_ids"].shape[1] - 1
    seconds = (context - num_other - max_new_tokens) / model.processor.audio_tokenizer.frame_rate
    if seconds < 1:
        raise ValueError(
            f"the context holds {context} tokens, of which the question takes {num_other} and the answer "
            f"max_new_tokens={max_new_tokens}: that leaves no second of audio; ask for shorter answers"
        )
    return float(seconds)


def _blocks(part: AudioPart, mono: Mono) -> Iterable[Tensor]:
    if part.array is None:
        return part.stream(mono, BLOCK_SECONDS)
    return [part.load(mono=mono)[0]]


def _segments(
    model: AudioLLM,
    pieces: Iterator[Piece],
    sample_rate: int,
    prompt: str,
    batch_size: int,
    generation: dict[str, Any],
) -> Iterator[TranscriptSegment]:
    while batch := list(itertools.islice(pieces, batch_size)):
        heard = [piece for piece in batch if piece.is_active]
        answers = iter(_answers(model, heard, sample_rate, prompt, generation))
        for piece in batch:
            yield TranscriptSegment(piece.start, piece.end, *(next(answers) if piece.is_active else NOT_ASKED))


def _answers(
    model: AudioLLM, pieces: list[Piece], sample_rate: int, prompt: str, generation: dict[str, Any]
) -> list[tuple[str, SegmentReason]]:
    """Text of each piece, and why it ended."""
    if not pieces:
        return []
    result = model.chat([_question(piece, sample_rate, prompt) for piece in pieces], **generation)
    return list(zip(result.texts, result.finish_reasons, strict=True))


def _question(piece: Piece, sample_rate: int, prompt: str) -> Conversation:
    audio = AudioPart(array=piece.waveform.numpy(), sampling_rate=sample_rate)
    name = f"piece from {piece.start:.2f} s"
    return Conversation(name, [Message("user", [audio, TextPart(prompt)])])
