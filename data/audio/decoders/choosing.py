"""Which decoder reads a recording that libsndfile cannot, and which decoders this machine has."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import tempfile
from importlib.metadata import version
from typing import Any, BinaryIO

import soundfile

from audiollm.data.audio.sources import AudioSource

from .base import Decoder, DecodingError
from .ffmpeg_program import open_with_program
from .pyav import open_with_pyav

# Formats that hold one recording. Playlists are left out: they make ffmpeg open other files.
FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,loas,matroska,webm,mov,mp4,m4a,mp3,mpeg,mpegts,"
    "nistsphere,ogg,rm,tta,voc,w64,wav,wv"
)
NO_FFMPEG_ADVICE = (
    "and there is no ffmpeg on the PATH and no PyAV to try. Convert it to WAV, FLAC, Ogg, Opus or MP3, or install "
    "ffmpeg or `pip install 'audiollm[av]'`"
)


def open_with_ffmpeg(
    source: AudioSource, file: BinaryIO, stack: contextlib.ExitStack, max_seconds: float | None = None
) -> Decoder:
    """Opens a recording with the ``ffmpeg`` program, or with PyAV where there is none.

    Args:
        source: what the caller gave.
        file: the same, opened.
        stack: ends what is started.
        max_seconds: by the clock, after which the program is ended; PyAV is not, whoever reads from it has to stop.

    Raises:
        DecodingError: neither is there, or it cannot read the file.
    """
    executable, av = shutil.which("ffmpeg"), _pyav()
    try:
        if executable is not None:
            return open_with_program(executable, _path_of(source, file, stack), FFMPEG_FORMATS, stack, max_seconds)
        if av is not None:
            return open_with_pyav(av, file, FFMPEG_FORMATS, stack)
    except DecodingError as error:
        raise DecodingError(f"and {'ffmpeg' if executable else 'PyAV'} says: {error}") from error
    raise DecodingError(NO_FFMPEG_ADVICE)


def available_decoders() -> dict[str, str]:
    """What reads recordings on this machine: decoder → version or place and what it reads, or how to get it."""
    program = shutil.which("ffmpeg")
    has_pyav = importlib.util.find_spec("av") is not None
    others = "reads what libsndfile cannot (M4A, WebM, WMA, Speex, G.722)"
    install_pyav = "not installed: pip install 'audiollm[av]'"
    return {
        "libsndfile": f"{soundfile.__libsndfile_version__}; reads WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, CAF, AU, W64",
        "ffmpeg": f"{program or 'not found: install it with your package manager'}; {others}",
        "PyAV": f"{version('av') if has_pyav else install_pyav}; {others}, where there is no ffmpeg program",
    }


def _pyav() -> Any:
    """The package, or ``None`` where it is not installed."""
    return importlib.import_module("av") if importlib.util.find_spec("av") is not None else None


def _path_of(source: AudioSource, file: BinaryIO, stack: contextlib.ExitStack) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.path.abspath(source)
    # A file and not a pipe: MP4 keeps its index at the end.
    copy = stack.enter_context(tempfile.NamedTemporaryFile(prefix="audiollm-"))  # noqa: SIM115
    file.seek(0)
    shutil.copyfileobj(file, copy)
    copy.flush()
    return copy.name
