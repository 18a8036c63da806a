"""RIFF and its relatives (WAV, RF64, W64, AIFF, CAF): chunks that announce their sizes.

libsndfile trusts the size of the file over the sizes written inside it: of a WAV cut in the middle it returns the first
half and reports success, and of one whose recorder was killed, nothing.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

from .base import Extent, Part, occurrences, read_at
from .mpeg import frame_at, measure_mpeg
from .tags import skip_tags

# Sizes from here up are written by programs that stream to a pipe and do not know the length yet.
UNKNOWN_SIZE_32 = 0x7FFFF000
UNKNOWN_SIZE_64 = (1 << 63) - 1
MAX_SIZE_32 = 0xFFFFFFFF
OTHER_BEGINNINGS = (b"OggS", b"fLaC", b".snd", b"NIST", b"Crea")  # of files, which look like names of chunks
MAX_CHUNKS = 4096  # a file with more chunks than that is not one that a recorder wrote
PCM_FORMAT_TAGS = (1, 3, 6, 7, 0xFFFE)  # integers, floats, A-law, mu-law, and EXTENSIBLE: any of them
EXTENSIBLE = 0xFFFE
MPEG_FORMAT_TAGS = (0x50, 0x55)


class ChunkLayout(NamedTuple):
    """How one family of containers writes its chunks."""

    first_chunk: int  # bytes from the start of the file
    id_bytes: int
    size_format: str  # struct format of the size that follows the id
    size_counts_header: bool
    alignment: int  # chunks start at multiples of this
    audio_ids: tuple[bytes, ...]  # of the chunk that holds the samples

    @property
    def header_bytes(self) -> int:
        return self.id_bytes + struct.calcsize(self.size_format)


_RIFF = ChunkLayout(12, 4, "<I", False, 2, (b"data",))
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
CHUNKED = {
    b"RIFF": _RIFF,
    b"RIFX": _RIFF._replace(size_format=">I"),
    b"RF64": _RIFF,
    b"BW64": _RIFF,
    b"FORM": ChunkLayout(12, 4, ">I", False, 2, (b"SSND", b"BODY")),
    b"caff": ChunkLayout(8, 4, ">q", False, 1, (b"data",)),
    b"riff": ChunkLayout(40, 16, "<Q", True, 8, (_W64_DATA,)),
}


class _Chunk(NamedTuple):
    """A chunk's header, and where its content lies."""

    id: bytes
    size: int  # as written
    start: int
    end: int  # of the content, as announced


def measure_chunks(file: BinaryIO, start: int, num_bytes: int) -> Extent:
    """Follows the chunks, those behind the samples too.

    Args:
        file: seekable binary file; its position is changed.
        start: where the file's mark stands.
        num_bytes: size of the file.
    """
    return _Walk(file, start, num_bytes).extent()


class _Walk:
    def __init__(self, file: BinaryIO, start: int, num_bytes: int) -> None:
        magic = read_at(file, start, 4)
        self._layout = CHUNKED[magic]
        self._has_wide_sizes = magic in (b"RF64", b"BW64")
        self._file, self._start, self._end = file, start, num_bytes
        self._wide_size: int | None = None  # of the samples, from a "ds64" chunk
        self._format_tag = 0
        self._plain_tag: tuple[int, bytes] | None = None  # where it goes into the header, in place of a longer one
        self._announced_samples = 0  # where a chunk of its own tells
        self._contradiction = ""

    def extent(self) -> Extent:
        position = self._start + self._layout.first_chunk
        for _ in range(MAX_CHUNKS):
            chunk = self._chunk(position)
            if chunk is None:
                break
            if chunk.id in self._layout.audio_ids:
                return self._measured(chunk)
            if chunk.id == b"ds64" and self._has_wide_sizes:
                (self._wide_size,) = struct.unpack("<8xQ", read_at(self._file, chunk.start, 16).ljust(16, b"\0"))
            self._read_description(chunk)
            position = self._behind(chunk)
        # No chunk of samples: libsndfile says so, or finds its way where a writer forgot a padding byte.
        return Extent(self._end, [Part(self._start, self._end)])

    def _read_description(self, chunk: _Chunk) -> None:
        """Takes from a chunk in front of the samples what it says of them."""
        if chunk.id[:4] == b"fmt " and self._layout.size_format in ("<I", "<Q"):
            fields = read_at(self._file, chunk.start, 16).ljust(16, b"\0")
            self._format_tag, channels, rate, bytes_per_second, frame_bytes, bits = struct.unpack("<HHIIHH", fields)
            agree = frame_bytes and frame_bytes * rate == bytes_per_second  # two words against one
            sample_bytes, rest = divmod(frame_bytes, max(1, channels))
            if self._format_tag in PCM_FORMAT_TAGS and agree and (rest or 8 * sample_bytes < bits):
                self._contradiction = (
                    f"is damaged: its header speaks of {channels} channels of {bits} bits, and of {frame_bytes} bytes "
                    "for all of them"
                )
            if self._format_tag == EXTENSIBLE and self._layout.size_format == "<Q":
                # libsndfile takes all samples of such a W64 for integers.
                self._plain_tag = (chunk.start - self._start, read_at(self._file, chunk.start + 24, 2))
        elif chunk.id == b"COMM":
            self._announced_samples = int.from_bytes(read_at(self._file, chunk.start + 2, 4), "big")
        elif chunk.id == b"pakt":
            samples = int.from_bytes(read_at(self._file, chunk.start + 8, 8), "big", signed=True)
            self._announced_samples = samples

    def _chunk(self, position: int) -> _Chunk | None:
        """The header at a place; ``None`` if there is none, or one that makes no sense."""
        layout = self._layout
        if position >= self._end:
            return None
        header = read_at(self._file, position, layout.header_bytes)
        if len(header) < layout.header_bytes:
            return None
        (size,) = struct.unpack(layout.size_format, header[layout.id_bytes :])
        body = size - layout.header_bytes if layout.size_counts_header else size
        start = position + layout.header_bytes
        return _Chunk(header[: layout.id_bytes], size, start, start + body)

    def _behind(self, chunk: _Chunk) -> int:
        """Where the next chunk begins; behind the end of the file where a size makes no sense."""
        if chunk.end < chunk.start:
            return self._end
        relative = chunk.end - self._start
        return chunk.end + -relative % self._layout.alignment

    def _measured(self, audio: _Chunk) -> Extent:
        present = self._end - audio.start
        body = audio.end - audio.start
        is_unknown = audio.size == -1  # of CAF
        if self._has_wide_sizes and audio.size == MAX_SIZE_32 and self._wide_size is not None:
            body = self._wide_size
        elif self._layout.size_format[1] == "I":
            is_unknown = body >= UNKNOWN_SIZE_32 and present < body
        else:
            is_unknown = is_unknown or audio.size >= UNKNOWN_SIZE_64
        if is_unknown:
            return self._of_unknown_length(audio)
        if body <= 0:
            return self._unfinished(audio)
        end = audio.start + body
        if body > present:
            return Extent(
                self._end,
                [Part(audio.start, self._end, self._header_with(audio, present))],
                f"is truncated: its header promises audio up to byte {end}, but the file ends at {self._end}",
            )
        if self._format_tag in MPEG_FORMAT_TAGS:
            return self._mpeg_inside(audio.start, end)
        chunks_end, behind, problem = self._end_of_chunks(audio._replace(end=end))
        part = Part(self._start, chunks_end, announced_samples=self._announced_samples)
        if self._plain_tag is not None:
            part = Part(audio.start, end, self._header_with(audio, body))
        return Extent(behind, [part], self._contradiction or problem)

    def _of_unknown_length(self, audio: _Chunk) -> Extent:
        """Written to a pipe: samples to the end of the file, or to where the next one begins."""
        end = self._end
        magic = read_at(self._file, self._start, 4)
        if magic in (b"RIFF", b"RF64"):
            for found in occurrences(self._file, b"WAVEfmt ", audio.start, self._end):
                if read_at(self._file, found - 8, 4) == magic:
                    end = found - 8
                    break
        if self._format_tag in MPEG_FORMAT_TAGS:
            return self._mpeg_inside(audio.start, end)
        return Extent(end, [Part(audio.start, end, self._header_with(audio, end - audio.start))])

    def _unfinished(self, audio: _Chunk) -> Extent:
        """The size is 0: no samples, or those of a recorder that was killed before it wrote the size."""
        chunks_end, behind, problem = self._end_of_chunks(audio._replace(end=audio.start))
        if behind >= self._end or read_at(self._file, behind, 4) in CHUNKED:
            return Extent(behind, [Part(self._start, chunks_end)], problem)
        size = self._end - audio.start
        return Extent(self._end, [Part(audio.start, self._end, self._header_with(audio, size))])

    def _header_with(self, audio: _Chunk, size: int) -> bytes:
        """Everything in front of the samples, with their size in it."""
        layout = self._layout
        header = bytearray(read_at(self._file, self._start, audio.start - self._start))
        if layout.size_format[1] == "I":
            outer = min(len(header) - 8 + size, MAX_SIZE_32)
            header[4:8] = struct.pack(layout.size_format, outer)
        if self._has_wide_sizes:
            # Sizes that fit are no business of the chunk of wide ones, so the file becomes a plain one.
            header[:4] = b"RIFF"
            wide = header.find(b"ds64")
            if wide >= 0:
                header[wide : wide + 4] = b"JUNK"
        if self._plain_tag is not None:
            place, tag = self._plain_tag
            header[place : place + 2] = tag
        written = size + layout.header_bytes if layout.size_counts_header else size
        limit = MAX_SIZE_32 if layout.size_format[1] == "I" else written
        header[-struct.calcsize(layout.size_format) :] = struct.pack(layout.size_format, min(written, limit))
        return bytes(header)

    def _mpeg_inside(self, start: int, end: int) -> Extent:
        """MP3 in a WAV file: the frames are the recording; libsndfile loses its way in the wrapping."""
        if frame_at(read_at(self._file, start, 7)) is None:
            return Extent(end, [Part(self._start, self._end)])
        extent = measure_mpeg(self._file, start, end)
        _, behind, problem = self._end_of_chunks(_Chunk(b"", 0, start, end))
        return Extent(behind, extent.parts, extent.problem or problem)

    def _end_of_chunks(self, audio: _Chunk) -> tuple[int, int, str]:
        """Where the last chunk ends, where tags and padding behind it do, and what is wrong if more follows."""
        chunks_end = position = audio.end
        for _ in range(MAX_CHUNKS):
            if position >= self._end:
                return chunks_end, self._end, ""
            padding = -(position - self._start) % self._layout.alignment
            if 0 < padding == self._end - position:  # of whatever value: some writers leave what was in their buffer
                return chunks_end, self._end, ""
            # Some writers forget the padding in front of a chunk.
            candidates = {position, position + padding}
            chunk = next((one for one in map(self._chunk, sorted(candidates)) if self._is_sensible(one)), None)
            if chunk is None:
                behind = skip_tags(self._file, position, self._end)
                if behind == position:
                    break
                position = behind
                continue
            if chunk.id[:4] in CHUNKED:  # another file
                return chunks_end, chunk.start - self._layout.header_bytes, ""
            if chunk.id in self._layout.audio_ids:
                return (
                    chunks_end,
                    self._end,
                    f"holds a second chunk of samples at byte {chunk.start} ({chunk.end - chunk.start} bytes); only "
                    "the first can be read",
                )
            position = self._behind(chunk)
            chunks_end = min(position, self._end)
        return chunks_end, position, ""

    def _is_sensible(self, chunk: _Chunk | None) -> bool:
        if chunk is None:
            return False
        is_named = chunk.id[:4] not in OTHER_BEGINNINGS and all(32 <= byte < 127 for byte in chunk.id[:4])
        return is_named and (chunk.start <= chunk.end <= self._end or chunk.id[:4] in CHUNKED)
