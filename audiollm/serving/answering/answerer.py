"""Answers requests: prompt, tokens, text and sound, piece by piece; whoever leaves takes all of it along."""
# Shapes: N samples, S token ids, T codes.

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from audiollm.chat.input import to_conversation
from audiollm.chat.segments import AudioSegment
from audiollm.data.conversation.types import AudioPart, Conversation, TextPart
from audiollm.generation.decoding import DecodingSettings, SpeechDecoder
from audiollm.generation.grammar import ends_inside_audio
from audiollm.generation.plan import AnswerPlan
from audiollm.generation.result import FinishReason
from audiollm.generation.settings import GenerationSettings
from audiollm.generation.streaming import SegmentReader, StreamedCodes, StreamedText
from audiollm.serving.engines.base import Engine, TokenRequest

from .admission import Admission
from .listening import Listener
from .model import ServedModel
from .sounding import Sound, SoundMaker
from .stopping import StopStrings

Result = TypeVar("Result")
_ANY_LENGTH = 2**31


class DeadlineError(RuntimeError):
    """A request took longer than it may."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AnswerRequest:
    """What is asked of the model.

    Attributes:
        messages: a chat, with recordings as audio parts.
        settings: what may be generated, and how.
        decoding: whose voice speaks; None: the decoder's own.
        has_sound: whether codes of the answer are made sound.
        tools: JSON schemas of functions.
        stop: texts before which the answer ends.
        request_id: its name in messages and logs.
    """

    messages: Conversation | Sequence[Mapping[str, Any]]
    settings: GenerationSettings
    decoding: DecodingSettings | None = None
    has_sound: bool = False
    tools: list[dict[str, Any]] | None = None
    stop: Sequence[str] = ()
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class TextPiece:
    """Text as it is generated; whole characters only."""

    text: str


@dataclass(frozen=True, eq=False)
class CodesPiece:
    """Audio codes as they are generated, before they are sound: where they stand between the pieces of text.

    Attributes:
        codes: of one segment; a piece of it.
        is_last: no more of the segment follow.
    """

    codes: list[int]
    is_last: bool


@dataclass(frozen=True, eq=False)
class SoundPiece:
    """Sound as it is generated: float32 ``[N]``, and its rate in Hz."""

    waveform: Tensor
    sample_rate: int


@dataclass(frozen=True)
class Usage:
    """Tokens of a request and its answer; marks of audio count as audio."""

    prompt_text: int
    prompt_audio: int
    answer_text: int
    answer_audio: int


@dataclass(frozen=True, eq=False)
class Finished:
    """The end of an answer.

    Attributes:
        token_ids: all that was generated.
        text: all of the text.
        codes: of all audio segments, in order: of several codebooks one row of the frames that are whole.
        finish_reason: "stop" if the model (or a stop text) ended the answer, "length" if a limit cut it.
        usage: tokens.
    """

    token_ids: list[int]
    text: str
    codes: list[int]
    finish_reason: FinishReason
    usage: Usage


AnswerPiece = TextPiece | CodesPiece | SoundPiece | Finished


@dataclass(frozen=True, eq=False)
class PreparedAnswer:
    """A request that was checked and whose prompt is made: nothing of it can be wrong any more."""

    request: AnswerRequest
    prompt_ids: list[int]
    plan: AnswerPlan
    decoder: SpeechDecoder | None


class Answerer:
    """Answers requests, as many at once as the engine computes.

    Args:
        model: what is served.
        engine: computes its tokens.
        max_waiting: requests that may wait for the engine.
        deadline_seconds: longest time of a request, from its place on.
        max_prompt_tokens: longest prompt; None: what the context holds.
        own_sound_process: sound is made in a process of its own, so that it does not wait for the language model's
            steps, nor they for it; `start` begins it.
    """

    def __init__(
        self,
        model: ServedModel,
        engine: Engine,
        *,
        max_waiting: int = 64,
        deadline_seconds: float = 600.0,
        max_prompt_tokens: int | None = None,
        own_sound_process: bool = False,
    ) -> None:
        self.model, self.engine = model, engine
        self.admission = Admission(engine.max_running, max_waiting)
        self.listener = Listener(model.processor)
        self.sounds = SoundMaker(
            model.processor,
            max_streams=engine.max_running,
            joins_segments=model.speaks_in_turns,
            own_process=own_sound_process and model.can_speak,
        )
        self._deadline_seconds = deadline_seconds
        self._max_prompt_tokens = max_prompt_tokens

    async def start(self) -> None:
        """Makes engine, audio tokenizer and sound ready; errors as for `Engine.start`."""
        await self.engine.start()
        if self.model.can_listen:
            await asyncio.to_thread(lambda: self.model.processor.audio_tokenizer)
        await asyncio.to_thread(self.sounds.start)

    async def stop(self) -> None:
        """Ends all of it."""
        await self.engine.stop()
        self.listener.close()
        await asyncio.to_thread(self.sounds.close)

    def deadline(self) -> float:
        """When a request that begins now has to be answered, on the event loop's clock."""
        return asyncio.get_running_loop().time() + self._deadline_seconds

    @asynccontextmanager
    async def answering(
        self, request: AnswerRequest, *, has_place: bool = False, deadline: float | None = None
    ) -> AsyncGenerator[AsyncGenerator[AnswerPiece, None], None]:
        """Takes a place, prepares the request, and gives the pieces of the answer: the last one is `Finished`.

        All that can be wrong with a request is raised before there is a first piece.

        Args:
            request: what is asked.
            has_place: it is a part of one that has taken a place.
            deadline: of that one, as `deadline` told it when it began; None: this one begins now.

        Raises:
            BusyError: if no place is free.
            ValueError: if the request cannot be answered, as `plan_answers`, the processor and the decoder say.
            AudioError: if a recording cannot be used.
            DeadlineError: if it takes too long; also while pieces come.
            EngineError: if the engine fails; also while pieces come.
        """
        with nullcontext() if has_place else self.admission.place():
            deadline = self.deadline() if deadline is None else deadline
            prepared = await self.in_time(self.prepare(request), deadline)
            pieces = self._pieces(prepared, deadline)
            async with aclosing(pieces):
                yield pieces

    async def prepare(self, request: AnswerRequest) -> PreparedAnswer:
        """Encodes the recordings, renders the prompt and settles the rules; errors as for `answering`."""
        conversation = to_conversation(request.messages, "messages", request.tools, None)
        codes = await self.listener.codes(conversation.audio_parts) if conversation.audio_parts else []
        decoder = None
        if request.has_sound:
            decoder = await asyncio.to_thread(self.sounds.decoder, request.decoding)
        inputs: Any = await asyncio.to_thread(
            self.model.processor.apply_chat_template,
            _with_codes(conversation, codes),
            add_generation_prompt=True,
            max_length=None if self.model.context is None else _ANY_LENGTH,  # the plan says what is too long, and why
        )
        prompt_ids = inputs["input_ids"]
        limit = self._max_prompt_tokens
        if limit is not None and prompt_ids.shape[1] > limit:
            raise ValueError(f"the prompt has {prompt_ids.shape[1]} tokens, but this server takes {limit}: shorten it")
        plan = self.model.plan(request.settings, prompt_ids)
        return PreparedAnswer(request, prompt_ids[0].tolist(), plan, decoder)

    async def _pieces(self, prepared: PreparedAnswer, deadline: float) -> AsyncGenerator[AnswerPiece, None]:
        making = _Answer(self, prepared)
        try:
            making.begin()
            while True:
                piece = await self.in_time(making.next(), deadline)
                yield piece
                if isinstance(piece, Finished):
                    return
        finally:
            await making.leave()

    async def in_time(self, work: Coroutine[Any, Any, Result], deadline: float) -> Result:
        """Waits for something until a time of the event loop's clock; raises DeadlineError when that has come."""
        try:
            return await asyncio.wait_for(work, max(0.0, deadline - asyncio.get_running_loop().time()))
        except asyncio.TimeoutError as error:
            seconds = self._deadline_seconds
            raise DeadlineError(
                f"the answer was not there after {seconds:g} s, which is as long as one may take here"
            ) from error


class _Answer:
    """One answer in the making: its tokens are read by a task, its sound is decoded by a thread."""

    def __init__(self, answerer: Answerer, prepared: PreparedAnswer) -> None:
        self._answerer, self._prepared = answerer, prepared
        vocabulary = answerer.model.processor.vocabulary
        self._is_open = bool(ends_inside_audio(torch.tensor([prepared.prompt_ids]), vocabulary))  # by the prompt
        self._pieces: asyncio.Queue[AnswerPiece | Exception] = asyncio.Queue()
        self._sounds: list[Sound] = []
        self._num_sounding = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._is_sounding = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._read())

    async def next(self) -> AnswerPiece:
        piece = await self._pieces.get()
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def leave(self) -> None:
        for sound in self._sounds:
            sound.leave()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        try:
            finished = await self._tokens()
            await self._quiet.wait()
            self._pieces.put_nowait(finished)
        except Exception as error:
            self._pieces.put_nowait(error)

    async def _tokens(self) -> Finished:
        prepared, processor = self._prepared, self._answerer.model.processor
        reader = SegmentReader(processor, is_open=self._is_open)
        stop = StopStrings(prepared.request.stop)
        token_ids: list[int] = []
        request = TokenRequest(prepared.request.request_id, tuple(prepared.prompt_ids), prepared.plan)
        async with aclosing(self._answerer.engine.tokens(request)) as coming:
            async for ids in coming:
                for token_id in ids:
                    token_ids.append(token_id)
                    for piece in reader.take(token_id):
                        self._give(piece, stop)
                    if stop.is_met:
                        break
                if stop.is_met:
                    break
        for piece in reader.end():
            self._give(piece, stop)
        self._text(stop.rest())
        self._end_sound()
        return self._finished(token_ids, stop)

    def _give(self, piece: StreamedText | StreamedCodes, stop: StopStrings) -> None:
        if isinstance(piece, StreamedText):
            self._text(stop.take(piece.text))
            return
        self._pieces.put_nowait(CodesPiece(piece.codes.tolist(), piece.is_last))
        if self._prepared.decoder is not None:
            self._sound(piece)

    def _text(self, text: str) -> None:
        if text:
            self._pieces.put_nowait(TextPiece(text))

    def _sound(self, piece: StreamedCodes) -> None:
        decoder = self._prepared.decoder
        assert decoder is not None
        if not self._is_sounding:
            self._quiet.clear()
            self._num_sounding += 1
            self._sounds.append(self._answerer.sounds.open(decoder, self._heard))
            self._is_sounding = True
        if len(piece.codes):
            self._sounds[-1].feed(piece.codes)
        if piece.is_last and not decoder.joins_segments:
            self._end_sound()

    def _end_sound(self) -> None:
        if self._is_sounding:
            self._sounds[-1].end()
            self._is_sounding = False

    def _heard(self, what: Tensor | Exception | None) -> None:
        if isinstance(what, Tensor):
            self._pieces.put_nowait(SoundPiece(what, self._answerer.sounds.sample_rate))
            return
        self._num_sounding -= 1
        if isinstance(what, Exception):
            self._pieces.put_nowait(what)
        if self._num_sounding == 0:
            self._quiet.set()

    def _finished(self, token_ids: list[int], stop: StopStrings) -> Finished:
        prepared, processor = self._prepared, self._answerer.model.processor
        plan, vocabulary = prepared.plan, processor.vocabulary
        segments = processor.split([*([vocabulary.start_id] if self._is_open else []), *token_ids])
        codes = [segment.codes.tolist() for segment in segments if isinstance(segment, AudioSegment)]
        has_ended = stop.is_met or (bool(token_ids) and token_ids[-1] in plan.eos_token_ids)
        is_cut = plan.is_cut(len(token_ids), has_ended, [len(one) for one in codes])
        text = stop.text
        prompt, answer = torch.tensor(prepared.prompt_ids), torch.tensor(token_ids, dtype=torch.long)
        prompt_audio, answer_audio = int(vocabulary.is_audio(prompt).sum()), int(vocabulary.is_audio(answer).sum())
        usage = Usage(len(prompt) - prompt_audio, prompt_audio, len(answer) - answer_audio, answer_audio)
        return Finished(token_ids, text, vocabulary.joined(codes), "length" if is_cut else "stop", usage)


def _with_codes(conversation: Conversation, codes: Sequence[Sequence[int]]) -> Conversation:
    """The same with the codes of its recordings in their places."""
    coming = iter(codes)

    def in_codes(part: TextPart | AudioPart) -> TextPart | AudioPart:
        return AudioPart(codes=list(next(coming)), where=part.where) if isinstance(part, AudioPart) else part

    messages = [replace(one, content=[in_codes(part) for part in one.content]) for one in conversation.messages]
    return replace(conversation, messages=messages)
