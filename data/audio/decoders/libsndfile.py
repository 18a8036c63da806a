"""libsndfile, through the soundfile package: WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, CAF, AU, W64, RF64 and more."""
# Shapes: n samples, C channels.

from __future__ import annotations

import contextlib
import io
import re
from typing import BinaryIO

import numpy as np
import soundfile

from audiollm.data.audio.sources import FileView

from .base import Decoder, DecodingError

UNKNOWN_FRAMES = 2**62  # libsndfile's "unknown" is the largest integer
# Encodings in which every sample has its place or its number (FLAC), so that libsndfile seeks exactly.
SEEKABLE_SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
# Rare formats, which are not gone over before they are opened.
FORMATS_CHECKED_BY_LOG = ("VOC", "AVR", "MPC2K", "WVE", "SDS", "MAT4", "MAT5")
_SDS_BLOCK = re.compile(r"^\s*Samples/Block\s*: (\d+)", re.MULTILINE)
_ANNOUNCED = re.compile(r"^\s*(?:Frames|Rows : \d+\s+Cols)\s*: (\d+)", re.MULTILINE)


class _SequentialSoundFile(soundfile.SoundFile):
    """Reads straight on. SoundFile seeks after every block, which FLAC of unknown length cannot do."""

    def seekable(self) -> bool:
        return False


def open_with_libsndfile(file: BinaryIO | FileView, stack: contextlib.ExitStack) -> Decoder:
    """Opens a file from its beginning.

    Args:
        file: an unbuffered file, which is read through its descriptor, or a view.
        stack: closes the decoder.

    Raises:
        DecodingError: libsndfile cannot read it.
    """
    file.seek(0)
    try:
        if isinstance(file, io.FileIO):
            reader = _SequentialSoundFile(file.fileno(), closefd=False)
        else:
            reader = _SequentialSoundFile(file)
    except soundfile.LibsndfileError as error:
        raise DecodingError(_cleaned(error)) from error
    stack.callback(reader.close)
    if reader.format == "SD2":  # described by a file "._" in the working folder, and not by anything in this one
        raise DecodingError("Format not recognised")

    def read(num_samples: int) -> np.ndarray:
        try:
            return reader.read(num_samples, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise DecodingError(_cleaned(error)) from error

    def seek(sample: int) -> None:
        try:
            reader.seek(sample)
        except soundfile.LibsndfileError as error:
            raise DecodingError(_cleaned(error)) from error

    num_samples = reader.frames if 0 <= reader.frames < UNKNOWN_FRAMES else None
    # In SDS it loses its way in the last block.
    can_seek = num_samples is not None and reader.subtype.startswith(SEEKABLE_SUBTYPES) and reader.format != "SDS"
    return Decoder(
        name="libsndfile",
        format=f"{reader.format} {reader.subtype}",
        sample_rate=reader.samplerate,
        num_channels=reader.channels,
        num_samples=num_samples,
        read=read,
        problem=_what_the_log_says(reader) if reader.format in FORMATS_CHECKED_BY_LOG else "",
        seek=seek if can_seek else None,
    )


def _what_the_log_says(reader: soundfile.SoundFile) -> str:
    """libsndfile notes what a header announces, and reads what is there."""
    log = reader.extra_info
    if reader.format == "SDS":
        return _what_blocks_lack(reader, log)
    announced = [int(count) for count in _ANNOUNCED.findall(log)][-1:]
    if "truncated" not in log and "should be" not in log and announced in ([], [reader.frames]):
        return ""
    promised = (
        f"its header announces {announced[0]} samples" if announced else "its header announces more than there is"
    )
    return f"is damaged or truncated: {promised}, libsndfile finds {reader.frames}"


def _what_blocks_lack(reader: soundfile.SoundFile, log: str) -> str:
    """Of SDS the log tells how many samples its blocks hold; the last one is filled up with zeros."""
    blocks_hold, per_block = int(_ANNOUNCED.findall(log)[-1]), int(_SDS_BLOCK.findall(log)[-1])
    if reader.frames <= blocks_hold < reader.frames + per_block:
        return ""
    return f"is damaged or truncated: its header announces {reader.frames} samples, its blocks hold {blocks_hold}"


def _cleaned(error: soundfile.LibsndfileError) -> str:
    """The message without what libsndfile puts around it."""
    return error.error_string.removeprefix("Error : ").strip().rstrip(".") or "no reason given"
