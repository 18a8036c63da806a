"""A response in the making: from the conversation to events of text and sound, until it is finished or cancelled."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from audiollm.data.conversation.types import Conversation as Messages
from audiollm.data.conversation.types import Message, TextPart
from audiollm.generation.decoding import DecodingSettings
from audiollm.generation.settings import GenerationSettings
from audiollm.processing.audio_rate import AudioRate
from audiollm.serving.answering.answerer import (
    AnswerPiece,
    AnswerRequest,
    CodesPiece,
    Finished,
    SoundPiece,
    TextPiece,
    Usage,
)

from ..errors import ApiError, told
from ..responses import SoundBytes
from ..state import ServerState
from ..voices import with_voice
from .buffer import SAMPLE_BYTES
from .configuration import SessionConfig
from .conversation import Conversation
from .events import error_event, new_id
from .items import Answered, Item
from .outbox import Outbox

ROOM_FOR_TEXT, ROOM_FOR_SOUND = 260, 512  # tokens that are left to an answer where no number is asked for
_NO_LIMIT = 1 << 40
Reason = Literal["turn_detected", "client_cancelled"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Asked:
    """What a response is asked for.

    Attributes:
        config: of the session, with what this response has otherwise.
        items: what it answers.
        is_kept: it becomes a part of the conversation.
        metadata: given back as it is.
        event_id: of the event that asked for it; None: the server did.
    """

    config: SessionConfig
    items: Sequence[Item]
    is_kept: bool = True
    metadata: Mapping[str, str] | None = None
    event_id: str | None = None


class Response:
    """One response; `start` begins it, and its events go to the outbox.

    Args:
        state: answers.
        conversation: where the answer is kept.
        outbox: takes the events.
        asked: what is answered, and how.
    """

    def __init__(self, state: ServerState, conversation: Conversation, outbox: Outbox, asked: Asked) -> None:
        self.id = new_id("resp")
        self._state, self._conversation, self._outbox, self._asked = state, conversation, outbox, asked
        model = state.answerer.model
        config = asked.config
        rate = AudioRate.of(model.processor.audio_tokenizer).frame_rate if config.speaks else 1.0
        self._answered = Answered(
            speaks=config.speaks,
            vocabulary=model.processor.vocabulary,
            frames_per_second=rate * config.speed,
            writes_before_speaking=model.speaks_in_turns,
        )
        self._item = Item(new_id("item"), "assistant", status="in_progress")
        self._sound = SoundBytes("pcm", state.answerer.sounds.sample_rate, config.speed) if config.speaks else None
        self._has_begun = self._has_item = self._is_finished = self._is_muted = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_active(self) -> bool:
        """Whether it is being made."""
        return not self._is_finished

    @property
    def is_gone(self) -> bool:
        """Whether all of it has ended: its place is free."""
        return self._task is None or self._task.done()

    def start(self) -> None:
        """Begins it."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def cancel(self, reason: Reason) -> None:
        """Ends it where it is; what of its sound was not sent yet never is. What was said stays."""
        if self._is_finished:
            return
        unsent = self._outbox.take_back_sound(self.id)
        self._answered.num_samples -= unsent
        self._finish("cancelled", {"type": "cancelled", "reason": reason})
        if self._answered.speaks:
            self._answered.cut(self._answered.seconds)
        self._stop()

    def mute(self) -> None:
        """Sends no more of its sound."""
        self._is_muted = True
        self._answered.num_samples -= self._outbox.take_back_sound(self.id)

    async def close(self) -> None:
        """Ends it without a word: the client has left."""
        self._is_finished = True
        self._stop()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    # --- from the request to its end ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            with self._state.answerer.admission.place():
                self._has_begun = True
                self._push("response.created", response=self._shown("in_progress"))
                await self._answer()
        except Exception as error:
            self._fail(told(error, self.id))
        finally:
            if self._sound is not None:
                self._sound.encoder.close()

    async def _answer(self) -> None:
        request = await self._request()
        async with self._state.answering(request, has_place=True) as pieces:
            self._begin_item()
            async for piece in pieces:
                self._take(piece)
                await self._outbox.room()
        assert isinstance(piece, Finished)
        if self._sound is not None:
            self._give_sound(self._sound.close())
        if piece.finish_reason == "length":
            details = {"type": "incomplete", "reason": "max_output_tokens"}
            self._finish("incomplete", details, piece.usage)
        else:
            self._finish("completed", {"type": "completed"}, piece.usage)

    async def _request(self) -> AnswerRequest:
        """What the model is asked; errors as for `Answerer.answering`."""
        config = self._asked.config
        said = [message for item in self._asked.items if (message := await item.message()) is not None]
        if not said:
            raise ApiError(400, "there is nothing to answer: the conversation is empty", code="conversation_empty")
        voice = self._state.voices.get(config.voice) if config.speaks else None
        if voice is not None and voice.words:
            said = with_voice(said, voice.words)
        told_before = [Message("system", [TextPart(config.instructions)])] if config.instructions else []
        messages, room = await self._fitting(told_before, said)
        wanted = config.max_output_tokens
        settings = GenerationSettings(
            modalities={"text", "audio"} if config.speaks else {"text"},
            max_new_tokens=wanted if wanted is None or room is None else max(1, min(wanted, room)),
        )
        return AnswerRequest(
            messages=messages,
            settings=settings,
            decoding=None if voice is None else DecodingSettings(prompt=voice.prompt),
            has_sound=config.speaks,
            request_id=self.id,
        )

    async def _fitting(self, before: Sequence[Message], said: Sequence[Message]) -> tuple[Messages, int | None]:
        """The messages, the oldest left out if they do not fit, and how many tokens are left for the answer."""
        config, context = self._asked.config, self._state.answerer.model.context
        room = config.max_output_tokens or (ROOM_FOR_SOUND if config.speaks else ROOM_FOR_TEXT)
        limits = [] if context is None else [context - min(room, context // 2)]
        if self._state.settings.max_prompt_tokens is not None:
            limits.append(self._state.settings.max_prompt_tokens)

        def cut(first: int) -> Messages:
            return Messages("conversation", [*before, *said[first:]])

        async def length(first: int) -> int:
            return await asyncio.to_thread(self._num_tokens, cut(first))

        first, last = 0, len(said) - 1  # of those that may be the first one left
        num_tokens = await length(0)
        if config.truncates and limits and num_tokens > min(limits):
            while first < last:
                middle = (first + last) // 2
                first, last = (first, middle) if await length(middle) <= min(limits) else (middle + 1, last)
            num_tokens = await length(first)
        return cut(first), None if context is None else context - num_tokens

    def _num_tokens(self, messages: Messages) -> int:
        processor: Any = self._state.answerer.model.processor
        # As long as it is: whether it fits is looked at here, and again where it is answered.
        made = processor.apply_chat_template(messages, add_generation_prompt=True, max_length=_NO_LIMIT)
        length: int = made["input_ids"].shape[1]
        return length

    # --- its events ---------------------------------------------------------------------------------------------------

    def _take(self, piece: AnswerPiece) -> None:
        if isinstance(piece, TextPiece):
            self._answered.add_text(piece.text)
            kind = "output_audio_transcript" if self._answered.speaks else "output_text"
            self._push(f"response.{kind}.delta", **self._place(), delta=piece.text)
        elif isinstance(piece, CodesPiece):
            self._answered.add_codes(piece.codes, is_last=piece.is_last)
        elif isinstance(piece, SoundPiece) and self._sound is not None:
            self._give_sound(self._sound.write(piece.waveform.numpy()))

    def _give_sound(self, pcm: bytes) -> None:
        if not pcm or self._is_muted:
            return
        num_samples = len(pcm) // SAMPLE_BYTES
        self._answered.num_samples += num_samples
        event = {"type": "response.output_audio.delta", "response_id": self.id, **self._place()}
        delta = base64.b64encode(pcm).decode()
        self._outbox.push({**event, "delta": delta}, sound_of=self.id, num_samples=num_samples)

    def _begin_item(self) -> None:
        self._has_item = True
        self._push("response.output_item.added", output_index=0, item=self._item.shown())
        if self._asked.is_kept:
            previous = self._conversation.add(self._item)
            self._outbox.push(
                {"type": "conversation.item.added", "previous_item_id": previous, "item": self._item.shown()}
            )
        self._item.content.append(self._answered)
        self._push("response.content_part.added", **self._place(), part=self._part())

    def _finish(self, status: str, details: Mapping[str, Any], usage: Usage | None = None) -> None:
        """All that ends it, at once."""
        if self._is_finished:
            return
        self._is_finished = True
        if not self._has_begun:
            return
        if self._has_item:
            self._end_item(status)
        self._push("response.done", response=self._shown(status, details, usage))

    def _end_item(self, status: str) -> None:
        self._item.status = "completed" if status == "completed" else "incomplete"
        text = self._answered.text
        if self._answered.speaks:
            self._push("response.output_audio.done", **self._place())
            self._push("response.output_audio_transcript.done", **self._place(), transcript=text)
        else:
            self._push("response.output_text.done", **self._place(), text=text)
        self._push("response.content_part.done", **self._place(), part=self._part())
        self._push("response.output_item.done", output_index=0, item=self._item.shown())
        if self._asked.is_kept and self._item in (items := list(self._conversation)):
            place = items.index(self._item)
            previous = items[place - 1].id if place else None
            self._outbox.push(
                {"type": "conversation.item.done", "previous_item_id": previous, "item": self._item.shown()}
            )

    def _fail(self, error: ApiError) -> None:
        if self._is_finished:
            return
        self._outbox.push(error_event(error, self._asked.event_id))
        inner = error.body["error"]
        known = {name: inner[name] for name in ("type", "code", "message")}
        self._finish("failed", {"type": "failed", "error": known})

    def _push(self, kind: str, **fields: Any) -> None:
        # Of a response itself its id is in it.
        named = {} if "response" in fields else {"response_id": self.id}
        self._outbox.push({"type": kind, **named, **fields})

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item.id, "output_index": 0, "content_index": 0}

    def _part(self) -> dict[str, Any]:
        text = self._answered.text
        return {"type": "audio", "transcript": text} if self._answered.speaks else {"type": "text", "text": text}

    def _shown(
        self, status: str, details: Mapping[str, Any] | None = None, usage: Usage | None = None
    ) -> dict[str, Any]:
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": [self._item.shown()] if self._has_item and status != "in_progress" else [],
            "conversation_id": None,
            **self._asked.config.shown(),
            "audio": {"output": self._asked.config.shown_output()},
            "usage": None if usage is None else usage_of(usage),
            "metadata": None if self._asked.metadata is None else dict(self._asked.metadata),
        }


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens as realtime clients read them."""
    read, made = usage.prompt_text + usage.prompt_audio, usage.answer_text + usage.answer_audio
    return {
        "total_tokens": read + made,
        "input_tokens": read,
        "output_tokens": made,
        "input_token_details": {
            "text_tokens": usage.prompt_text,
            "audio_tokens": usage.prompt_audio,
            "cached_tokens": 0,
        },
        "output_token_details": {"text_tokens": usage.answer_text, "audio_tokens": usage.answer_audio},
    }
