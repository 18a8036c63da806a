"""One session: reads events, tells turns, starts and stops responses, and ends when its client leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import torch
from starlette.websockets import WebSocket, WebSocketDisconnect

from audiollm.generation.settings import GenerationSettings
from audiollm.serving.answering.transcribing import Transcription
from audiollm.serving.sound.formats import RESPONSE_RATE
from audiollm.serving.sound.uploads import Recording
from audiollm.transcription.transcript import Transcript, TranscriptSegment

from ..errors import ApiError, refused, told
from ..state import ServerState
from . import events
from .buffer import SAMPLE_BYTES, InputBuffer, milliseconds, waveform_of
from .configuration import SessionConfig
from .conversation import LEAST_SECONDS, Conversation, ItemMaker
from .items import Heard, Item
from .outbox import Outbox
from .responses import Asked, Response, usage_of
from .turns import TurnDetector

_LARGE_EVENT_CHARACTERS = 1 << 18  # above that it is parsed on a thread
_BLOCK_BYTES = SAMPLE_BYTES * RESPONSE_RATE  # a second: what is listened to before others have their turn
_EXPIRED = 1001  # the code of a websocket that is closed because one side goes away
_FAREWELL_SECONDS = 1.0


class Session:
    """A conversation with one client.

    Args:
        websocket: accepted.
        state: what routes share.
    """

    def __init__(self, websocket: WebSocket, state: ServerState) -> None:
        self._websocket, self._state = websocket, state
        self._limits = state.settings.realtime
        self.id = events.new_id("sess")
        self._config = SessionConfig.of(state)
        self._outbox = Outbox()
        self._conversation = Conversation(self._limits)
        listener = state.answerer.listener if state.answerer.model.can_listen else None
        self._maker = ItemMaker(listener, self._limits)
        self._buffer = InputBuffer()
        self._detector: TurnDetector | None = None
        self._turn_id: str | None = None  # of the item that the turn which is being spoken will be
        self._response: Response | None = None
        self._ending: list[Response] = []
        self._transcribing: set[asyncio.Task[None]] = set()
        self._expires_at = int(time.time() + self._limits.max_session_seconds)
        self._handlers: dict[type, Callable[[Any], Awaitable[None]]] = {
            events.UpdateSession: self._update,
            events.AppendAudio: self._append,
            events.CommitAudio: self._commit,
            events.ClearAudio: self._clear,
            events.ClearOutput: self._clear_output,
            events.CreateItem: self._create_item,
            events.DeleteItem: self._delete_item,
            events.RetrieveItem: self._retrieve_item,
            events.TruncateItem: self._truncate_item,
            events.CreateResponse: self._create_response,
            events.CancelResponse: self._cancel_response,
        }

    async def run(self) -> None:
        """Goes on until the client leaves, or the session has lasted as long as it may."""
        self._outbox.push({"type": "session.created", "session": self._shown()})
        sending = asyncio.ensure_future(self._outbox.send(self._websocket))
        reading = asyncio.ensure_future(self._read())
        try:
            done, _ = await asyncio.wait(
                {sending, reading}, timeout=self._limits.max_session_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                _raise_unless_left(task)
            if not done:
                reading.cancel()
                await self._expire()
        finally:
            for task in (sending, reading, *self._transcribing):
                task.cancel()
            await asyncio.gather(sending, reading, *self._transcribing, return_exceptions=True)
            for response in self._ending:
                await response.close()
            self._conversation.close()

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await self._take(message.get("text"))
            await self._outbox.room()

    async def _take(self, text: str | None) -> None:
        """What is wrong with an event is told, and the session goes on."""
        event_id = None
        try:
            if text is None:
                raise ApiError(400, "events are frames of text, not of bytes", code="invalid_frame")
            is_large = len(text) > _LARGE_EVENT_CHARACTERS
            data = await self._state.read(lambda: events.parsed(text)) if is_large else events.parsed(text)
            event_id = events.event_id_of(data)
            event = events.checked(data)
            await self._handlers[type(event)](event)
        except WebSocketDisconnect:
            raise
        except Exception as error:
            self._outbox.push(events.error_event(told(error, self.id), event_id))

    async def _expire(self) -> None:
        seconds = self._limits.max_session_seconds
        error = ApiError(400, f"the session has lasted {seconds:g} s, as long as one may here", code="session_expired")
        if self._response is not None:
            self._response.cancel("client_cancelled")
        self._outbox.push(events.error_event(error, None))
        try:
            await asyncio.wait_for(self._outbox.emptied(), _FAREWELL_SECONDS)
            await self._websocket.close(_EXPIRED, "session_expired")
        except (asyncio.TimeoutError, RuntimeError, WebSocketDisconnect):
            return  # a client that does not read is cut off when this returns

    # --- the session --------------------------------------------------------------------------------------------------

    def _shown(self) -> dict[str, Any]:
        return {**self._config.shown_session(self._state.model_name), "id": self.id, "expires_at": self._expires_at}

    async def _update(self, event: events.UpdateSession) -> None:
        before = self._config.turn_detection
        self._config = self._config.patched(event.session, self._state, "session")
        if self._config.turn_detection != before:
            self._detector, self._turn_id = None, None
        self._outbox.push({"type": "session.updated", "session": self._shown()})

    # --- what comes in ------------------------------------------------------------------------------------------------

    async def _append(self, event: events.AppendAudio) -> None:
        if not self._state.answerer.model.can_listen:
            raise refused("audio", "this model has no audio tokenizer, so it takes no recordings")
        is_large = len(event.audio) > _LARGE_EVENT_CHARACTERS
        pcm = (
            await self._state.read(lambda: self._maker.samples(event.audio, "audio"))
            if is_large
            else self._maker.samples(event.audio, "audio")
        )
        if self._config.turn_detection is None:
            self._check_buffer(len(pcm))
            self._buffer.add(pcm)
            return
        for first in range(0, len(pcm), _BLOCK_BYTES):
            await self._listen(pcm[first : first + _BLOCK_BYTES])
            await asyncio.sleep(0)

    def _check_buffer(self, num_bytes: int) -> None:
        seconds, most = num_bytes / SAMPLE_BYTES / RESPONSE_RATE, self._limits.max_buffer_seconds
        if self._buffer.seconds + seconds > most:
            message = (
                f"audio: with it the buffer would have {self._buffer.seconds + seconds:.0f} s, but {most:g} are the "
                "most: commit or clear it first; nothing of this event was taken"
            )
            raise ApiError(413, message, param="audio", code="audio_too_large")

    async def _listen(self, pcm: bytes) -> None:
        """Takes up to a second, and acts on the turns that begin or end in it."""
        settings = self._config.turn_detection
        assert settings is not None
        if self._detector is None:
            # Silero's network takes a tenth of a second to load.
            place = self._buffer.end
            self._detector = await asyncio.to_thread(TurnDetector, settings, self._limits.activity, place)
        detector = self._detector
        self._buffer.add(pcm)
        for edge in list(detector.feed(waveform_of(pcm))):
            if edge.is_start:
                self._begin_turn(edge.place)
            else:
                self._end_turn(edge.place)
        if self._turn_id is None:
            self._buffer.forget_before(detector.first_place - self._padding)
        elif self._buffer.seconds >= self._limits.max_buffer_seconds:
            detector.reset()
            self._end_turn(self._buffer.end)

    @property
    def _padding(self) -> int:
        """Samples in front of a turn that belong to it."""
        turns = self._config.turn_detection
        return 0 if turns is None else turns.prefix_padding_ms * RESPONSE_RATE // 1000

    def _begin_turn(self, place: int) -> None:
        settings = self._config.turn_detection
        assert settings is not None
        self._turn_id = events.new_id("item")
        self._buffer.forget_before(place - self._padding)
        self._outbox.push(
            {
                "type": "input_audio_buffer.speech_started",
                "audio_start_ms": milliseconds(self._buffer.start),
                "item_id": self._turn_id,
            }
        )
        if settings.interrupt_response and self._response is not None:
            self._response.cancel("turn_detected")

    def _end_turn(self, place: int) -> None:
        settings, item_id = self._config.turn_detection, self._turn_id
        assert settings is not None
        assert item_id is not None
        self._turn_id = None
        self._outbox.push(
            {
                "type": "input_audio_buffer.speech_stopped",
                "audio_end_ms": milliseconds(place),
                "item_id": item_id,
            }
        )
        try:
            self._commit_recording(self._buffer.take(place), item_id)
            if settings.create_response:
                self._respond(Asked(config=self._config, items=list(self._conversation)))
        except ApiError as error:  # no event of the client is to blame
            self._outbox.push(events.error_event(error, None))

    async def _commit(self, event: events.CommitAudio) -> None:
        if self._buffer.seconds < LEAST_SECONDS:
            message = (
                f"the buffer has {1000 * self._buffer.seconds:.0f} ms of sound, but {1000 * LEAST_SECONDS:g} are the "
                "least: append more first"
            )
            raise ApiError(400, message, code="input_audio_buffer_commit_empty")
        self._conversation.check_room()
        item_id = self._turn_id or events.new_id("item")
        self._reset_turn()
        self._commit_recording(self._buffer.take(), item_id)

    def _commit_recording(self, pcm: bytes, item_id: str) -> None:
        heard = self._maker.recording(pcm, "audio")
        item = Item(item_id, "user", [heard])
        previous = self._add(item)
        committed = {"type": "input_audio_buffer.committed", "previous_item_id": previous, "item_id": item.id}
        self._outbox.push(committed)
        self._tell_added(item, previous)
        if self._config.transcribes:
            self._transcribe(item, heard)

    async def _clear(self, event: events.ClearAudio) -> None:
        self._buffer.take()
        self._reset_turn()
        self._outbox.push({"type": "input_audio_buffer.cleared"})

    def _reset_turn(self) -> None:
        self._turn_id = None
        if self._detector is not None:
            self._detector.reset()

    # --- transcripts of it --------------------------------------------------------------------------------------------

    def _transcribe(self, item: Item, heard: Heard) -> None:
        assert heard.pcm is not None
        recording = Recording(torch.from_numpy(waveform_of(heard.pcm)), RESPONSE_RATE)
        task = asyncio.ensure_future(self._written(item, heard, recording))
        self._transcribing.add(task)
        task.add_done_callback(self._transcribing.discard)

    async def _written(self, item: Item, heard: Heard, recording: Recording) -> None:
        about = {"item_id": item.id, "content_index": 0}
        kind = "conversation.item.input_audio_transcription"
        try:
            settings = GenerationSettings()
            transcription = Transcription(
                self._state.answerer, recording, "transcribe", settings, item.id, answering=self._state.answering
            )
            segments: list[TranscriptSegment] = []
            async for segment in transcription.segments():
                segments.append(segment)
                if text := segment.text.strip():
                    delta = f" {text}" if Transcript(segments[:-1]).text else text
                    self._outbox.push({"type": f"{kind}.delta", **about, "delta": delta})
        except Exception as error:
            inner = told(error, item.id).body["error"]
            self._outbox.push({"type": f"{kind}.failed", **about, "error": inner})
            return
        heard.transcript = Transcript(segments).text
        usage = {"type": "tokens", **usage_of(transcription.usage)}
        for name in ("input_token_details", "output_token_details"):
            usage[name].pop("cached_tokens", None)
        done = {"type": f"{kind}.completed", **about, "transcript": heard.transcript, "usage": usage}
        self._outbox.push(done)

    # --- the conversation ---------------------------------------------------------------------------------------------

    def _add(self, item: Item, after: str | None = None) -> str | None:
        try:
            return self._conversation.add(item, after)
        except ApiError:
            item.forget()
            raise

    def _tell_added(self, item: Item, previous: str | None) -> None:
        for kind in ("added", "done"):
            self._outbox.push({"type": f"conversation.item.{kind}", "previous_item_id": previous, "item": item.shown()})

    async def _create_item(self, event: events.CreateItem) -> None:
        self._conversation.check_room()
        item = self._maker.item(event.item, "item")
        self._tell_added(item, self._add(item, event.previous_item_id))

    async def _delete_item(self, event: events.DeleteItem) -> None:
        item = self._conversation.get(event.item_id)
        if item.status == "in_progress":
            raise refused("item_id", "it is still being said: send response.cancel first")
        self._conversation.remove(item)
        self._outbox.push({"type": "conversation.item.deleted", "item_id": item.id})

    async def _retrieve_item(self, event: events.RetrieveItem) -> None:
        item = self._conversation.get(event.item_id)
        self._outbox.push({"type": "conversation.item.retrieved", "item": item.shown(has_audio=True)})

    async def _truncate_item(self, event: events.TruncateItem) -> None:
        self._conversation.truncate(event.item_id, event.audio_end_ms)
        about = {"item_id": event.item_id, "content_index": 0, "audio_end_ms": event.audio_end_ms}
        self._outbox.push({"type": "conversation.item.truncated", **about})

    # --- responses ----------------------------------------------------------------------------------------------------

    async def _create_response(self, event: events.CreateResponse) -> None:
        patch = event.response or events.ResponsePatch()
        config = self._config.patched(patch, self._state, "response")
        made: list[Item] = []
        try:
            items = list(self._conversation) if patch.input is None else self._items(patch.input, made)
            self._respond(
                Asked(
                    config=config,
                    items=items,
                    is_kept=patch.conversation != "none",
                    metadata=patch.metadata,
                    event_id=event.event_id,
                )
            )
        except ApiError:
            for item in made:
                item.forget()
            raise

    def _items(self, bodies: list[events.ItemBody | events.ItemReference], made: list[Item]) -> list[Item]:
        """What a response answers instead of the conversation; those that are made for it are told to ``made``."""
        items = []
        for number, body in enumerate(bodies):
            where = f"response.input[{number}]"
            if isinstance(body, events.ItemReference):
                items.append(self._conversation.get(body.id, f"{where}.id"))
            else:
                made.append(self._maker.item(body, where))
                items.append(made[-1])
        return items

    def _respond(self, asked: Asked) -> None:
        if self._response is not None and self._response.is_active:
            message = f"the response {self._response.id} is being made: wait for its end, or send response.cancel"
            raise ApiError(400, message, code="conversation_already_has_active_response")
        if asked.is_kept:
            self._conversation.check_room()
        self._ending = [one for one in self._ending if not one.is_gone]
        self._response = Response(self._state, self._conversation, self._outbox, asked)
        self._ending.append(self._response)
        self._response.start()

    async def _cancel_response(self, event: events.CancelResponse) -> None:
        response = self._response
        if response is None or not response.is_active:
            raise ApiError(400, "no response is being made: there is none to cancel", code="response_cancel_not_active")
        if event.response_id not in (None, response.id):
            raise ApiError(
                400,
                f"response_id: no response {event.response_id!r} is being made",
                param="response_id",
                code="response_cancel_not_active",
            )
        response.cancel("client_cancelled")

    async def _clear_output(self, event: events.ClearOutput) -> None:
        if self._response is not None:
            self._response.mute()
        cleared = {"type": "output_audio_buffer.cleared"}
        self._outbox.push(cleared | ({"response_id": self._response.id} if self._response is not None else {}))


def _raise_unless_left(task: asyncio.Future[None]) -> None:
    """Raises what ended a task, but for the client's leaving."""
    error: BaseException | None = task.exception()
    if error is not None and not isinstance(error, (WebSocketDisconnect, OSError)):
        raise error
