"""Ogg (RFC 3533): every page has a checksum, a number and the time it ends at, so nothing is lost unnoticed.

libsndfile skips a page whose checksum is wrong and takes the length from the last page it finds: of a file with a
single wrong bit it returns a part of the sound without a word.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import BinaryIO

from .base import Extent, Part, occurrences
from .tags import skip_tags

PAGE_MARK = b"OggS\0"
HEADER_BYTES = 27
# A page has at most 255 segments of at most 255 bytes, and one byte each for their sizes.
MAX_PAGE_BYTES = HEADER_BYTES + 255 + 255 * 255
READ_BYTES = 1 << 20
CONTINUED, FIRST, LAST = 1, 2, 4  # flags of a page
# Places without a page that are gone over: more are not damage, but bytes made to keep a reader busy.
MAX_DAMAGED_PLACES = 1 << 14
NO_TIME = -1  # of a page on which no packet ends
_REVERSED_BITS = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def page_checksum(page: bytes) -> int:
    """CRC of a page whose own checksum field is zero.

    Ogg uses the polynomial of zlib with the bits of every byte the other way round, from 0 and without a final
    inversion: so zlib's fast code does it, on bytes whose bits are turned.
    """
    turned = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{turned:032b}"[::-1], 2)


@dataclass
class _Stream:
    """One logical stream of a link."""

    next_number: int
    time: int = 0  # of its last page: samples, for audio
    has_ended: bool = False


@dataclass
class _Link:
    """Streams that begin together; a radio recording has several of these, one behind the other."""

    start: int
    end: int  # of its last page
    streams: dict[bytes, _Stream] = field(default_factory=dict)
    holds_data: bool = False  # a page that begins no stream has been seen

    def unfinished(self) -> bool:
        return any(not stream.has_ended for stream in self.streams.values())


def measure_ogg(file: BinaryIO, start: int, num_bytes: int) -> Extent:
    """Checks every page.

    Args:
        file: seekable binary file; its position is changed.
        start: where the first page begins.
        num_bytes: size of the file.
    """
    walk = _Walk(file, start, num_bytes)
    walk.run()
    parts = [Part(link.start, link.end) for link in walk.links]
    return Extent(walk.end, parts, walk.problem, ffmpeg_reads_all=True)


class _Walk:
    def __init__(self, file: BinaryIO, start: int, num_bytes: int) -> None:
        self.links: list[_Link] = []
        self.problem = ""
        self.end = num_bytes  # where something else begins
        self._file, self._position, self._end = file, start, num_bytes
        self._buffer, self._buffer_start = b"", start

    def run(self) -> None:
        num_damaged = 0
        while self._position < self._end:
            page = self._page()
            if page is None:
                # Behind a damaged page, or among junk: on to the next mark. What is lost, the page numbers tell.
                num_damaged += 1
                if num_damaged > MAX_DAMAGED_PLACES:
                    self._note(f"is damaged: {num_damaged} places in it are no pages")
                    break
                following = next(occurrences(self._file, PAGE_MARK, self._position + 1, self._end), None)
                if following is None:
                    if not self.problem and self.links and not self.links[-1].unfinished():
                        self.end = self._position  # tags behind the last page, or another file
                    break
                if skip_tags(self._file, self._position, following) < following:
                    self._note(f"is damaged: {following - self._position} bytes at byte {self._position} are no pages")
                self._position = following
                continue
            self._take(page)
            self._position += len(page)
        if self.links and self.links[-1].unfinished():
            self._note(
                "is truncated, or of a recorder that was stopped: the page that says that the stream ends is missing; "
                'on_damaged="take" reads what is there'
            )
        if not self.links:
            self.links.append(_Link(self._position, self._end))
            self._note("is damaged: no stream begins in it")

    def _bytes(self, num_bytes: int) -> bytes:
        """The next bytes, fewer at the end of the file."""
        at = self._position - self._buffer_start
        if not 0 <= at <= len(self._buffer) - num_bytes:
            self._file.seek(self._position)
            self._buffer, self._buffer_start, at = self._file.read(READ_BYTES), self._position, 0
        return self._buffer[at : at + num_bytes]

    def _page(self) -> bytes | None:
        """The whole page that begins here; ``None`` if there is none, or none to rely on."""
        head = self._bytes(HEADER_BYTES + 255)
        if not head.startswith(PAGE_MARK):
            return None
        if len(head) < HEADER_BYTES or len(head) < HEADER_BYTES + head[26]:
            self._note(f"is truncated: the page at byte {self._position} is not whole")
            return None
        num_segments = head[26]
        size = HEADER_BYTES + num_segments + sum(head[HEADER_BYTES : HEADER_BYTES + num_segments])
        page = self._bytes(size)
        if len(page) < size:
            self._note(f"is truncated: the page at byte {self._position} is not whole")
            return None
        if page_checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
            self._note(f"is damaged: the page at byte {self._position} has a wrong checksum")
            return None
        return page

    def _take(self, page: bytes) -> None:
        flags, serial = page[5], page[14:18]
        time = int.from_bytes(page[6:14], "little", signed=True)
        number = int.from_bytes(page[18:22], "little")
        if flags & FIRST:
            self._begin_stream(serial, number)
        elif not self.links or serial not in self.links[-1].streams:
            self._note(f"is damaged: the page at byte {self._position} belongs to a stream whose beginning is missing")
            return
        link = self.links[-1]
        link.end = self._position + len(page)
        stream = link.streams[serial]
        link.holds_data = link.holds_data or not flags & FIRST
        if stream.has_ended:
            self._note(f"is damaged: a page at byte {self._position} follows the end of its stream")
        if number != stream.next_number:
            self._note(
                f"is damaged: page {stream.next_number} of a stream is missing; page {number} follows, at byte "
                f"{self._position}"
            )
        if time != NO_TIME and time < stream.time:
            self._note(f"is damaged: the page at byte {self._position} goes back in time")
        stream.next_number = (number + 1) & 0xFFFFFFFF
        stream.time = stream.time if time == NO_TIME else time
        stream.has_ended = bool(flags & LAST)

    def _begin_stream(self, serial: bytes, number: int) -> None:
        if not self.links or self.links[-1].holds_data or serial in self.links[-1].streams:
            if self.links and self.links[-1].unfinished():
                self._note(
                    f"is truncated: another stream begins at byte {self._position}, but the one in front of it has "
                    "not ended"
                )
            self.links.append(_Link(self._position, self._position))
        self.links[-1].streams[serial] = _Stream(number)

    def _note(self, problem: str) -> None:
        """Keeps the first problem: the others often follow from it."""
        self.problem = self.problem or problem
