"""The items of a session in their order, made of what clients send."""

from __future__ import annotations

from collections.abc import Iterator

from audiollm.serving.answering.listening import Listener
from audiollm.serving.settings import RealtimeSettings
from audiollm.serving.sound.formats import RESPONSE_RATE
from audiollm.serving.sound.uploads import UploadLimits, decode_base64

from ..errors import ApiError, refused
from .buffer import SAMPLE_BYTES
from .configuration import checked_text
from .events import ContentBody, ItemBody, new_id
from .items import Answered, Content, Heard, Item, Written

LEAST_SECONDS = 0.1  # of a recording: less holds nothing that could be understood
_TYPES = {"user": ("input_text", "input_audio"), "system": ("input_text",), "assistant": ("output_text",)}


class ItemMaker:
    """Makes items of what clients send.

    Args:
        listener: encodes recordings; None: the model takes none.
        limits: how much is taken.
    """

    def __init__(self, listener: Listener | None, limits: RealtimeSettings) -> None:
        self._listener, self._limits = listener, limits

    def item(self, body: ItemBody, where: str) -> Item:
        """An item.

        Args:
            body: as it was sent.
            where: what it is called in its event.

        Raises:
            ApiError: something in it cannot be used; its field is named.
        """
        content = [self._content(one, body.role, f"{where}.content[{n}]") for n, one in enumerate(body.content)]
        return Item(body.id or new_id("item"), body.role, content)

    def recording(self, pcm: bytes, where: str, transcript: str | None = None) -> Heard:
        """Samples as content.

        Raises:
            ApiError: they are too few, or the model takes none.
        """
        if self._listener is None:
            raise refused(where, "this model has no audio tokenizer, so it takes no recordings")
        seconds = len(pcm) / SAMPLE_BYTES / RESPONSE_RATE
        if seconds < LEAST_SECONDS:
            message = f"{where}: has {1000 * seconds:.0f} ms of sound, but {1000 * LEAST_SECONDS:g} are the least"
            raise ApiError(400, message, param=where, code="audio_too_short")
        return Heard(pcm, self._listener, transcript)

    def samples(self, text: str, where: str) -> bytes:
        """The samples in base64, which may be none.

        Raises:
            UploadError: it is none.
            ApiError: half a sample is left.
        """
        if not text:
            return b""
        pcm = decode_base64(text, UploadLimits(max_bytes=self._limits.max_append_bytes), where)
        if len(pcm) % SAMPLE_BYTES:
            message = f"{where}: has {len(pcm)} bytes: samples have {SAMPLE_BYTES} each, 16 bit, little-endian"
            raise ApiError(400, message, param=where, code="invalid_audio")
        return pcm

    def _content(self, body: ContentBody, role: str, where: str) -> Content:
        if body.type not in _TYPES[role]:
            known = " and ".join(_TYPES[role])
            raise refused(f"{where}.type", f"{body.type!r}: messages of the role {role} hold {known}")
        if body.type == "input_audio":
            if body.audio is None:
                raise refused(f"{where}.audio", "is missing: send samples of 24 kHz, 16 bit, in base64")
            if body.text is not None:
                raise refused(f"{where}.text", "is not of a recording: leave it out")
            pcm = self.samples(body.audio, f"{where}.audio")
            seconds, most = len(pcm) / SAMPLE_BYTES / RESPONSE_RATE, self._limits.max_buffer_seconds
            if seconds > most:
                message = f"{where}.audio: has {seconds:.0f} s of sound, but {most:g} are the most here"
                raise ApiError(413, message, param=f"{where}.audio", code="audio_too_large")
            return self.recording(pcm, f"{where}.audio", body.transcript)
        for name in ("audio", "transcript"):
            if getattr(body, name) is not None:
                raise refused(f"{where}.{name}", "is of a recording: leave it out")
        if body.text is None:
            raise refused(f"{where}.text", "is missing")
        return Written(body.type, checked_text(body.text, self._limits.max_text_characters, f"{where}.text"))


class Conversation:
    """The items of a session.

    Args:
        limits: how many, and how much of their sound is kept.
    """

    def __init__(self, limits: RealtimeSettings) -> None:
        self._limits = limits
        self._items: list[Item] = []

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @property
    def last_id(self) -> str | None:
        """Of the last item; None: there is none."""
        return self._items[-1].id if self._items else None

    def check_room(self) -> None:
        """Raises ApiError if there may be no more items."""
        if len(self._items) >= self._limits.max_items:
            message = f"the conversation has {len(self._items)} items, as many as there may be: delete some"
            raise ApiError(400, message, code="conversation_full")

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Adds an item.

        Args:
            item: with an id that no other has.
            after: id of the one before it; "root": it becomes the first; None: the last.

        Returns:
            The id of the one before it; None: it is the first.

        Raises:
            ApiError: the id is taken, there is none of the other, or there are too many.
        """
        self.check_room()
        if any(one.id == item.id for one in self._items):
            raise refused("item.id", "another item is called like that: use another id, or leave it out")
        place = len(self._items)
        if after is not None:
            place = 0 if after == "root" else self._items.index(self.get(after, "previous_item_id")) + 1
        self._items.insert(place, item)
        self._let_go()
        return self._items[place - 1].id if place else None

    def get(self, item_id: str, param: str = "item_id") -> Item:
        """The item of an id.

        Raises:
            ApiError: there is none.
        """
        found = next((one for one in self._items if one.id == item_id), None)
        if found is None:
            raise ApiError(400, f"{param}: no item is called {item_id!r}", param=param, code="item_not_found")
        return found

    def remove(self, item: Item) -> None:
        """Takes one away."""
        self._items.remove(item)
        item.forget()

    def truncate(self, item_id: str, milliseconds: int) -> None:
        """Keeps of an answer what was heard.

        Raises:
            ApiError: there is no such item, it was not spoken, is still being said, or was shorter.
        """
        item = self.get(item_id)
        answered = item.content[0] if item.content else None
        if not isinstance(answered, Answered) or not answered.speaks:
            raise refused("item_id", "only what the model has spoken can be truncated")
        if item.status == "in_progress":
            raise refused("item_id", "it is still being said: send response.cancel first")
        if milliseconds > 1000 * answered.seconds + 1:
            raise refused("audio_end_ms", f"{milliseconds} is behind its end, at {1000 * answered.seconds:.0f}")
        answered.cut(milliseconds / 1000)

    def close(self) -> None:
        """Lets go of all recordings."""
        for item in self._items:
            item.forget()

    def _let_go(self) -> None:
        """Of the oldest recordings the codes alone are kept."""
        recordings = [one for item in self._items for one in item.recordings if one.pcm is not None]
        seconds = sum(one.seconds for one in recordings)
        for one in recordings:
            if seconds <= self._limits.max_kept_seconds:
                return
            one.pcm = None
            seconds -= one.seconds
