"""An answer while it is generated: text, codes and sound come out piece by piece.

`SegmentReader` turns ids into text and codes, `SegmentStreamer` those of ``generate``; `AnswerStream` runs ``generate``
in a thread of its own and hands the codes to the waveform decoder as they come, so that speech starts before the
sentence ends.
"""
# Shapes: B rows, S token ids, T codes, N samples.

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Queue
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from audiollm.processing.processor import AudioLLMProcessor

from .decoding import SpeechDecoder
from .grammar import ends_inside_audio
from .result import GenerationResult


@dataclass(frozen=True, eq=False)
class StreamedText:
    """Text as it is generated; whole characters only."""

    text: str


@dataclass(frozen=True, eq=False)
class StreamedCodes:
    """Codes as they are generated, int64 ``[T]``; ``is_last`` when their segment has ended."""

    codes: Tensor
    is_last: bool


class SegmentReader:
    """Takes the ids of one answer as they come, and gives text and codes.

    Args:
        processor: the Audio-LLM's processor.
        chunk_codes: codes to collect before they are given out; the rest of a segment follows when it ends.
        is_open: whether the prompt has left an audio segment open.
    """

    def __init__(self, processor: AudioLLMProcessor, chunk_codes: int = 1, *, is_open: bool = False) -> None:
        self._processor = processor
        self._vocabulary = processor.vocabulary
        self._chunk_codes = chunk_codes
        self._text_ids: list[int] = []
        self._num_given = 0  # of them, those whose text has been given out
        self._codes: list[int] = []
        self._is_open = is_open

    def take(self, token_id: int) -> Iterator[StreamedText | StreamedCodes]:
        """What there is to give out with the next id."""
        first_code_id = self._vocabulary.first_code_id
        if 0 <= token_id - first_code_id < self._vocabulary.codebook_size:
            self._codes.append(token_id - first_code_id)
            if len(self._codes) >= self._chunk_codes:
                yield from self._taken_codes(is_last=False)
        elif token_id in (self._vocabulary.start_id, self._vocabulary.end_id):
            yield from self.end()
            self._is_open = token_id == self._vocabulary.start_id
        else:
            self._text_ids.append(token_id)
            yield from self._taken_text(is_last=False)

    def end(self) -> Iterator[StreamedText | StreamedCodes]:
        """What is left."""
        yield from self._taken_text(is_last=True)
        yield from self._taken_codes(is_last=True)

    def _taken_text(self, is_last: bool) -> Iterator[StreamedText]:
        # Only the ids since the piece before the last: all of them would take longer each time. That piece is among
        # them, for some tokenizers decode a first token without its blank.
        given = self._processor.decode(self._text_ids[: self._num_given])
        text = self._processor.decode(self._text_ids)
        # A character of several bytes may come in several tokens; until it is whole it decodes to U+FFFD.
        if (is_last or not text.endswith("\ufffd")) and len(text) > len(given):
            yield StreamedText(text[len(given) :])
            self._text_ids, self._num_given = self._text_ids[self._num_given :], len(self._text_ids) - self._num_given
        if is_last:
            self._text_ids, self._num_given = [], 0

    def _taken_codes(self, is_last: bool) -> Iterator[StreamedCodes]:
        if self._codes or (is_last and self._is_open):
            yield StreamedCodes(torch.tensor(self._codes, dtype=torch.long), is_last)
        self._codes = []
        if is_last:
            self._is_open = False


class SegmentStreamer(BaseStreamer):
    """Gives out an answer while it is generated: iterate over it in another thread than ``generate``.

    Args:
        processor: the Audio-LLM's processor.
        chunk_codes: codes to collect before they are given out; the rest of a segment follows when it ends.
        timeout_seconds: how long to wait for the next token before ``queue.Empty`` is raised; None waits for ever.

    Raises:
        ValueError: if more than one row is generated.
    """

    def __init__(
        self, processor: AudioLLMProcessor, chunk_codes: int = 25, timeout_seconds: float | None = None
    ) -> None:
        self._processor = processor
        self._chunk_codes = chunk_codes
        self._timeout_seconds = timeout_seconds
        self._queue: Queue[StreamedText | StreamedCodes | None] = Queue()
        self._reader: SegmentReader | None = None  # from the prompt on

    def put(self, value: Tensor) -> None:
        """Takes the prompt first, then one token at a time; called by ``generate``."""
        if value.shape[0] != 1:
            raise ValueError(f"a stream follows one answer, not {value.shape[0]}: generate rows one by one")
        if self._reader is None:
            is_open = bool(ends_inside_audio(value, self._processor.vocabulary)) if value.dim() == 2 else False
            self._reader = SegmentReader(self._processor, self._chunk_codes, is_open=is_open)
            return
        for token_id in value.flatten().tolist():
            for piece in self._reader.take(token_id):
                self._queue.put(piece)

    def end(self) -> None:
        """Gives out what is left; called by ``generate``."""
        for piece in self._reader.end() if self._reader is not None else ():
            self._queue.put(piece)
        self._queue.put(None)

    def close(self) -> None:
        """Ends the iteration where it is: for a ``generate`` that failed, which never calls `end`."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[StreamedText | StreamedCodes]:
        while (event := self._queue.get(timeout=self._timeout_seconds)) is not None:
            yield event


@dataclass(frozen=True, eq=False)
class StreamedAudio:
    """Sound as it is generated.

    Attributes:
        waveform: the next samples, float32, ``[N]``.
        sample_rate: their rate in Hz.
        segment: which audio segment of the answer they belong to, from 0; joined, the pieces of one are its waveform.
            Where the segments of an answer are parts of one sound, that is 0.
    """

    waveform: Tensor
    sample_rate: int
    segment: int


class StopRequest(StoppingCriteria):
    """Ends ``generate`` at the next token once it is set, from whatever thread."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Asks for the end."""
        self._event.set()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Tells for each row of ``input_ids [B, S]`` whether it ends; bool ``[B]``."""
        return torch.full((input_ids.shape[0],), self._event.is_set(), dtype=torch.bool, device=input_ids.device)


class AnswerStream(Iterator[StreamedText | StreamedAudio]):
    """Text and sound of one answer, in order, while the model is still generating it.

    The model starts in a thread of its own with the first ``next``; codes are decoded by the thread that iterates. An
    error of either is raised where the stream is read. Leaving early (``close``, the end of a ``with`` block, or
    letting go of the stream) stops the model at its next token and waits for its thread.

    Args:
        generate: generates with the given streamer and stops when asked to.
        processor: the Audio-LLM's processor.
        decoder: turns codes into sound; None if there will be none.
        chunk_codes: codes to collect before the decoder gets them; the sound does not depend on it.
        sound_only: give out no text; the result holds it.
    """

    def __init__(
        self,
        generate: Callable[[BaseStreamer, StoppingCriteria], GenerationResult],
        processor: AudioLLMProcessor,
        decoder: SpeechDecoder | None,
        chunk_codes: int = 1,
        *,
        sound_only: bool = False,
    ) -> None:
        self._results: list[GenerationResult] = []
        # The running thread and the generator know nothing of this object, so that letting go of it ends both.
        self._events = _answer(generate, SegmentStreamer(processor, chunk_codes), decoder, sound_only, self._results)

    @property
    def result(self) -> GenerationResult | None:
        """All of the answer, waveforms included; None until the stream is exhausted."""
        return self._results[0] if self._results else None

    def close(self) -> None:
        """Stops the model and waits for its thread; does nothing at the end of the stream."""
        self._events.close()

    def __next__(self) -> StreamedText | StreamedAudio:
        return next(self._events)

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _answer(
    generate: Callable[[BaseStreamer, StoppingCriteria], GenerationResult],
    streamer: SegmentStreamer,
    decoder: SpeechDecoder | None,
    sound_only: bool,
    results: list[GenerationResult],
) -> Generator[StreamedText | StreamedAudio, None, None]:
    """Generates in a thread and decodes in this one; puts the result into the empty list at the end."""
    stop = StopRequest()
    waveforms: list[Tensor] = []
    with ThreadPoolExecutor(1, "audiollm-generate") as executor:  # leaving the block waits for the thread
        future = executor.submit(_generate, generate, streamer, stop)
        try:
            events = iter(streamer)
            for event in events:
                if isinstance(event, StreamedText):
                    if not sound_only:
                        yield event
                    continue
                if decoder is None:
                    raise RuntimeError("the model speaks, but this stream was opened for text alone")
                chunks = []
                texts: list[StreamedText] = []
                codes = _codes_of_segment(event, events, future, texts if decoder.joins_segments else None)
                for waveform in decoder.decode_stream(codes):
                    yield from _taken(texts, sound_only)
                    if len(waveform):
                        chunks.append(waveform)
                        yield StreamedAudio(waveform, decoder.sample_rate, len(waveforms))
                yield from _taken(texts, sound_only)
                waveforms.append(torch.cat(chunks) if chunks else torch.zeros(0))
            result = future.result()
        finally:
            stop.set()
    if decoder is not None:
        result.waveforms, result.sample_rate = [waveforms], decoder.sample_rate
    results.append(result)


def _generate(
    generate: Callable[[BaseStreamer, StoppingCriteria], GenerationResult],
    streamer: SegmentStreamer,
    stop: StopRequest,
) -> GenerationResult:
    try:
        return generate(streamer, stop)
    finally:
        streamer.close()


def _codes_of_segment(
    first: StreamedCodes,
    events: Iterator[StreamedText | StreamedCodes],
    generation: Future[GenerationResult],
    texts_between: list[StreamedText] | None,
) -> Iterator[Tensor]:
    """The codes of the segment that ``first`` opens, as they come.

    Args:
        first: its first codes.
        events: what follows.
        generation: tells what went wrong where they end too early.
        texts_between: is given the texts behind the segment, and the codes of all segments behind it come as its own;
            None: it ends where it ends.

    Raises:
        BaseException: whatever ended the generation inside the segment.
    """
    event: StreamedText | StreamedCodes | None = first
    is_open = True
    while event is not None:
        if isinstance(event, StreamedText):
            if texts_between is None:
                break
            texts_between.append(event)
        else:
            is_open = not event.is_last
            if len(event.codes):
                yield event.codes
            if event.is_last and texts_between is None:
                return
        event = next(events, None)
    generation.result()
    if is_open:
        raise RuntimeError("the stream of codes ended inside a segment")


def _taken(texts: list[StreamedText], sound_only: bool) -> list[StreamedText]:
    """Empties the list; in a stream of one sound, what was written meanwhile comes before the next piece of it."""
    taken = [] if sound_only else list(texts)
    texts.clear()
    return taken
