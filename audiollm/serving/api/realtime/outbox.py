"""Events on their way to the client: in order, no more of them than it reads, and sound that may be taken back."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket

from .events import new_id

MAX_EVENTS = 64  # that wait; whoever makes more waits until the client has read


@dataclass(frozen=True)
class _Waiting:
    text: str
    response_id: str | None  # of sound
    num_samples: int


class Outbox:
    """Sends events."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._is_filled, self._has_room = asyncio.Event(), asyncio.Event()
        self._has_room.set()

    def push(self, event: Mapping[str, Any], *, sound_of: str | None = None, num_samples: int = 0) -> None:
        """Adds an event, which gets its ``event_id``; never waits, so that some belong together.

        Args:
            event: with its type.
            sound_of: the response whose sound it carries: it may be taken back.
            num_samples: of that sound.
        """
        # ASCII: whatever a client called its event can be sent back.
        text = json.dumps({"event_id": new_id("event"), **event})
        self._waiting.append(_Waiting(text, sound_of, num_samples))
        self._settle()

    async def room(self) -> None:
        """Waits until few enough events wait."""
        await self._has_room.wait()

    def take_back_sound(self, response_id: str) -> int:
        """Sends no sound of a response that was not sent yet; tells how many samples that were."""
        sound = [one for one in self._waiting if one.response_id == response_id]
        self._waiting = deque(one for one in self._waiting if one.response_id != response_id)
        self._settle()
        return sum(one.num_samples for one in sound)

    async def send(self, websocket: WebSocket) -> None:
        """Sends all that comes, until it is cancelled or the client has left."""
        while True:
            await self._is_filled.wait()
            one = self._waiting.popleft()
            self._settle()
            await websocket.send_text(one.text)

    async def emptied(self) -> None:
        """Waits until nothing waits."""
        while self._waiting:
            await asyncio.sleep(0.01)

    def _settle(self) -> None:
        for flag, is_set in (
            (self._is_filled, bool(self._waiting)),
            (self._has_room, len(self._waiting) <= MAX_EVENTS),
        ):
            (flag.set if is_set else flag.clear)()
