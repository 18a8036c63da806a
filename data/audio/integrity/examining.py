"""Goes over the bytes of a recording, from one file in it to the next, whatever it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from .base import Contents, Extent, Part, occurrences, read_at
from .chunks import CHUNKED, measure_chunks
from .flac import BEGINNINGS as FLAC_BEGINNINGS
from .flac import MAGIC as FLAC_MAGIC
from .flac import measure_flac
from .headers import (
    BEGINNING_BYTES,
    MATROSKA_MAGIC,
    SPHERE_MAGIC,
    UNMEASURED_MAGICS,
    VOC_MAGIC,
    begins_for_ffmpeg,
    measure_au,
    measure_by_magic,
    measure_matroska,
    measure_mp4,
    measure_sphere,
    measure_voc,
)
from .mpeg import frame_at, measure_mpeg
from .ogg import PAGE_MARK, measure_ogg
from .tags import skip_tags

GIT_LFS_POINTER = b"version https://git-lfs"
AUDIO_MAGICS = (*CHUNKED, FLAC_MAGIC, PAGE_MARK[:4], b"ID3", b".snd", MATROSKA_MAGIC, SPHERE_MAGIC)
# Of eight bytes and more, which sound does not hold by chance, and how far behind a file's beginning they stand.
UNMISTAKABLE_MARKS = (
    *((mark, 0) for mark in (*FLAC_BEGINNINGS, SPHERE_MAGIC + b"\n", VOC_MAGIC, b"caff\0\1\0\0", b".snd\0\0\0")),
    *(
        (mark, 0)
        for mark in (b"riff\x2e\x91\xcf\x11", b"Extended Instrument: ", b"ALawSoundFile", b"MATLAB 5.0 MAT-file")
    ),
    *((mark, 8) for mark in (b"WAVEfmt ", b"WAVEds64", b"AIFFCOMM", b"AIFCFVER", b"8SVXVHDR")),
    (PAGE_MARK + b"\2\0\0\0\0\0\0\0\0", 0),
)
RARE_MAGICS = (b"PVF1\n", b" paf", b"\x64\xa3\x02\0")  # Portable Voice Format, Ensoniq PARIS, IRCAM
MAX_PARTS = 1024  # a day of radio, song by song, has half as many

_Measure = Callable[[BinaryIO, int, int], Extent]


def starts_like_audio(head: bytes) -> bool:
    """Tells whether the first 12 bytes of a file are those of a common audio format."""
    is_mpeg_frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 != 0
    return is_mpeg_frame or head.startswith(AUDIO_MAGICS) or head[4:8] == b"ftyp"


def examine(file: BinaryIO, num_bytes: int) -> Contents:
    """Answers for every format: what does it hold, is all of it there, and does anything follow its end?

    Args:
        file: seekable binary file; its position is changed.
        num_bytes: size of the file.
    """
    if read_at(file, 0, len(GIT_LFS_POINTER)) == GIT_LFS_POINTER:
        return Contents(refusal="is a Git LFS pointer, not the recording; run `git lfs pull`")
    contents = Contents()
    position = 0
    last: Extent | None = None
    while True:
        begin, measure = position, _measure_of(read_at(file, position, 16))
        if measure is None:  # only then: an MP4 begins with zeros
            begin = skip_tags(file, position, num_bytes)
            measure = _measure_of(read_at(file, begin, 16))
        if measure is None or begin >= num_bytes:
            break
        last = measure(file, begin, num_bytes)
        contents.parts += last.parts
        contents.problem = contents.problem or last.problem
        if measure is measure_by_magic:
            contents.problem = contents.problem or _another_file_inside(file, begin, last.end)
        contents.ffmpeg_reads_all = contents.ffmpeg_reads_all and last.ffmpeg_reads_all
        position = last.end
        if len(contents.parts) > MAX_PARTS:
            contents.refusal = f"joins more than {MAX_PARTS} files; take it apart"
            break
    if last is None:
        contents.parts = [Part(0, num_bytes)]
        contents.problem = _another_file_inside(file, 0, num_bytes)
        # `begin` is where its tags end; a transport stream, and MPEG programs, begin with what might be one.
        heads = [read_at(file, place, BEGINNING_BYTES) for place in (0, begin)]
        if not any(begins_for_ffmpeg(head) for head in heads):
            contents.unknown_beginning = (
                f"is cut at its front, or holds something else there: it begins with {heads[-1][:12]!r}, like no "
                "recording, and what sound stands behind may be a part of it only; convert it, or take it apart"
            )
    elif not contents.parts:
        contents.refusal = contents.problem or "holds no sound"
    elif begin < num_bytes and not last.is_told_from_junk:
        contents.problem = contents.problem or (
            f"holds {num_bytes - begin} bytes behind the end of its audio, from byte {begin} on, which may be sound: "
            "its sizes are wrong, or something was appended"
        )
    return contents


def _another_file_inside(file: BinaryIO, start: int, end: int) -> str:
    """Formats that are not gone over are read to where they say or to the end, so another file behind is looked for."""
    own = read_at(file, start, 8)
    own_mark = [(own, 0)] if own.startswith(RARE_MAGICS) else []
    for mark, offset in (*UNMISTAKABLE_MARKS, *own_mark):
        found = next(occurrences(file, mark, start + 1, end), None)
        if found is not None:
            return f"holds another file at byte {found - offset}, which would be lost or heard as noise; take it apart"
    return ""


def _measure_of(head: bytes) -> _Measure | None:
    if head[:4] in CHUNKED:
        return measure_chunks
    if head.startswith(PAGE_MARK):
        return measure_ogg
    if head.startswith(FLAC_MAGIC):
        return measure_flac
    if head.startswith(b".snd"):
        return measure_au
    if head.startswith(SPHERE_MAGIC):
        return measure_sphere
    if head.startswith(MATROSKA_MAGIC):
        return measure_matroska
    if head[4:8] == b"ftyp":
        return measure_mp4
    if head.startswith(VOC_MAGIC):
        return measure_voc
    if head.startswith(UNMEASURED_MAGICS):
        return measure_by_magic
    return measure_mpeg if frame_at(head) is not None else None
