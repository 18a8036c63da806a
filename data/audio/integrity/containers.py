"""Sizes that audio files announce inside them, so that a cut file is noticed.

libsndfile trusts the size of the file over the sizes written inside it: of a WAV cut in the middle it returns the
first half and reports success. The functions here read the few header fields that tell a whole file from a cut one.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

# Sizes from here up are written by programs that stream to a pipe and do not know the length yet.
UNKNOWN_SIZE_32 = 0x7FFFF000
AUDIO_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b"riff", b"fLaC", b"OggS", b"ID3", b".snd")
MATROSKA_MAGIC = b"\x1a\x45\xdf\xa3"
MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
MAX_CHUNKS = 4096  # a file with more chunks in front of its audio is not one that a recorder wrote
OGG_PAGE_HEADER_BYTES = 27
OGG_MAX_STREAMS = 64  # that begin together; real files have an audio stream and at most a picture or a few texts
# RFC 3533: a page has at most 255 segments of at most 255 bytes, and one byte each for their sizes.
OGG_MAX_PAGE_BYTES = OGG_PAGE_HEADER_BYTES + 255 + 255 * 255
ID3V2_HEADER_BYTES = 10
ID3V2_MAX_TAGS = 16  # taggers that prepend instead of replacing leave several; a bound on what a crafted file costs
MP3_SYNC_SEARCH_BYTES = 4096  # how much padding of zeros behind the tags is looked over for the first frame
# 72 * 8000 / 24000: the shortest frame that MPEG audio layer III knows, so a bound on how many a file can hold.
MP3_MIN_FRAME_BYTES = 24
MP3_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


class ChunkLayout(NamedTuple):
    """How one family of containers writes its chunks."""

    first_chunk: int  # bytes from the start of the file
    id_bytes: int
    size_format: str  # struct format of the size that follows the id
    size_counts_header: bool
    alignment: int  # chunks start at multiples of this
    audio_id: bytes  # id of the chunk that holds the samples


_RIFF = ChunkLayout(12, 4, "<I", False, 2, b"data")
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
CHUNKED = {
    b"RIFF": _RIFF,
    b"RIFX": _RIFF._replace(size_format=">I"),
    b"RF64": _RIFF,
    b"BW64": _RIFF,
    b"FORM": ChunkLayout(12, 4, ">I", False, 2, b"SSND"),
    b"caff": ChunkLayout(8, 4, ">q", False, 1, b"data"),
    b"riff": ChunkLayout(40, 16, "<Q", True, 8, _W64_DATA),
}


def starts_like_audio(head: bytes) -> bool:
    """Tells whether the first 12 bytes of a file are those of a common audio format."""
    is_mpeg_frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 != 0
    return is_mpeg_frame or head.startswith((*AUDIO_MAGICS, MATROSKA_MAGIC)) or head[4:8] == b"ftyp"


def promised_size(file: BinaryIO, num_bytes: int) -> int | None:
    """Returns how many bytes the file must have to hold all the audio that its header announces.

    Args:
        file: seekable binary file; its position is changed.
        num_bytes: size of the file.

    Returns:
        Bytes from the start of the file to the end of its audio, or ``None`` where the format does not say (MP3,
        FLAC, whose sample count the decoder checks, and files written to a pipe).
    """
    file.seek(0)
    magic = file.read(4)
    if magic in CHUNKED:
        return _end_of_audio_chunk(file, CHUNKED[magic], num_bytes, wide=magic in (b"RF64", b"BW64"))
    if magic == b".snd":
        offset, size = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
        return None if size == 0xFFFFFFFF else offset + size
    if magic == MATROSKA_MAGIC:
        return _end_of_matroska_segment(file)
    if magic == b"OggS":
        return _end_of_last_ogg_page(file, num_bytes)
    return None


def _end_of_audio_chunk(file: BinaryIO, layout: ChunkLayout, num_bytes: int, wide: bool) -> int | None:
    header_bytes = layout.id_bytes + struct.calcsize(layout.size_format)
    position, wide_size = layout.first_chunk, None
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        header = file.read(header_bytes)
        if len(header) < header_bytes:
            return None  # no audio chunk: libsndfile says so, or finds its way where a writer forgot a padding byte
        chunk_id = header[: layout.id_bytes]
        (size,) = struct.unpack(layout.size_format, header[layout.id_bytes :])
        body = size - header_bytes if layout.size_counts_header else size
        if wide and chunk_id == b"ds64":
            (wide_size,) = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))
        if chunk_id == layout.audio_id:
            if wide and size == 0xFFFFFFFF and wide_size is not None:
                body = wide_size
            elif body < 0 or (layout.size_format[1] == "I" and body >= UNKNOWN_SIZE_32 and num_bytes < body):
                return None
            return position + header_bytes + body
        if body < 0:
            return None
        position += header_bytes + body
        position += -position % layout.alignment
    return None


def _end_of_matroska_segment(file: BinaryIO) -> int | None:
    """Follows the two elements of a Matroska or WebM file: a header, then one segment with everything."""
    header_size, header_start = _matroska_size(file, len(MATROSKA_MAGIC))
    if header_size is None:
        return None
    file.seek(header_start + header_size)
    if file.read(4) != MATROSKA_SEGMENT:
        return None
    segment_size, segment_start = _matroska_size(file, header_start + header_size + 4)
    return None if segment_size is None else segment_start + segment_size


def _matroska_size(file: BinaryIO, position: int) -> tuple[int | None, int]:
    """Reads an element's size: the leading zero bits of its first byte count the bytes that follow."""
    file.seek(position)
    field = file.read(8)
    if not field or not field[0]:
        return None, position
    num_bytes = 9 - field[0].bit_length()
    value_bits = 7 * num_bytes
    size = int.from_bytes(field[:num_bytes], "big") & (1 << value_bits) - 1
    is_unknown = size == (1 << value_bits) - 1  # a live recording
    return None if is_unknown else size, position + num_bytes


def _end_of_last_ogg_page(file: BinaryIO, num_bytes: int) -> int | None:
    tail_start = max(0, num_bytes - 2 * OGG_MAX_PAGE_BYTES)
    file.seek(tail_start)
    tail = file.read(2 * OGG_MAX_PAGE_BYTES)
    start = tail.rfind(b"OggS\0")
    if start < 0:
        return None
    header = tail[start : start + OGG_PAGE_HEADER_BYTES]
    if len(header) < OGG_PAGE_HEADER_BYTES:
        return tail_start + start + OGG_PAGE_HEADER_BYTES
    num_segments = header[-1]
    segment_sizes = tail[start + OGG_PAGE_HEADER_BYTES :][:num_segments]
    return tail_start + start + OGG_PAGE_HEADER_BYTES + num_segments + sum(segment_sizes)


def joins_several_ogg_streams(file: BinaryIO, num_bytes: int) -> bool:
    """Tells whether an Ogg file is several streams in a row (a radio recording); libsndfile plays only the first."""
    serials = set()
    position = 0
    # Every stream that starts with the file opens it with a "beginning of stream" page (flag 2).
    for _ in range(OGG_MAX_STREAMS):
        file.seek(position)
        page = file.read(OGG_PAGE_HEADER_BYTES + 255)
        if len(page) < OGG_PAGE_HEADER_BYTES or not page.startswith(b"OggS\0") or not page[5] & 2:
            break
        serials.add(page[14:18])
        num_segments = page[26]
        position += OGG_PAGE_HEADER_BYTES + num_segments + sum(page[OGG_PAGE_HEADER_BYTES:][:num_segments])
    file.seek(max(0, num_bytes - 2 * OGG_MAX_PAGE_BYTES))
    tail = file.read(2 * OGG_MAX_PAGE_BYTES)
    last_page = tail[max(0, tail.rfind(b"OggS\0")) :]
    return bool(serials) and last_page[14:18] not in serials


def mp3_length_header(file: BinaryIO, num_bytes: int) -> tuple[bytes, int] | None:
    """Builds the length header that an MP3 lacks.

    Without a "Xing"/"Info" frame, libsndfile estimates the length from the first frame's bit rate and stops there:
    of a variable-rate file that starts loudly it silently drops most. With a header that promises more frames than
    the file can hold, it reads to the real end instead.

    Args:
        file: seekable binary file; its position is changed.
        num_bytes: size of the file.

    Returns:
        ``(header, start)``: a frame to put in front of ``file[start:]``, or ``None`` if the file is not layer III
        audio or has a length header of its own.
    """
    start = 0
    for _ in range(ID3V2_MAX_TAGS):
        file.seek(start)
        tag = file.read(ID3V2_HEADER_BYTES)
        if len(tag) < ID3V2_HEADER_BYTES or not tag.startswith(b"ID3"):
            break
        # The size is 4 x 7 bits; bit 4 of the flags announces a footer of another 10 bytes.
        size = (tag[6] & 127) << 21 | (tag[7] & 127) << 14 | (tag[8] & 127) << 7 | tag[9] & 127
        start += ID3V2_HEADER_BYTES * (2 if tag[5] & 16 else 1) + size
    file.seek(start)
    head = file.read(MP3_SYNC_SEARCH_BYTES)
    padding = len(head) - len(head.lstrip(b"\0"))
    start, head = start + padding, head[padding:]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer, rate_index = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 2 & 3
    if version not in MP3_SAMPLE_RATES or layer != 1 or rate_index == 3 or head[2] >> 4 in (0, 15):
        return None
    # Their place depends on version and channels; 200 bytes hold all of them.
    if any(mark in head[4:200] for mark in (b"Xing", b"Info", b"VBRI")):
        return None
    is_mpeg1, is_mono = version == 3, head[3] >> 6 == 3
    side_info_bytes = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
    # Any bit rate will do whose frame has room for the fields: 128 kbit/s (index 9) or 64 kbit/s (index 8).
    coefficient, bitrate_bps, bitrate_index = (144, 128_000, 9) if is_mpeg1 else (72, 64_000, 8)
    frame_bytes = coefficient * bitrate_bps // MP3_SAMPLE_RATES[version][rate_index]
    frame_header = bytes([0xFF, head[1] | 1, bitrate_index << 4 | head[2] & 0x0C, head[3]])
    num_frames = num_bytes // MP3_MIN_FRAME_BYTES + 1
    fields = b"Xing" + struct.pack(">II", 1, min(num_frames, 0xFFFFFFFF))
    return (frame_header + bytes(side_info_bytes) + fields).ljust(frame_bytes, b"\0"), start
