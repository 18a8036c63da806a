"""PyAV: ffmpeg's libraries as a Python package, an optional extra that needs no program on the machine."""
# Shapes: n samples, C channels.

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from .base import Decoder, DecodingError


def open_with_pyav(av: Any, file: BinaryIO, formats: str, stack: contextlib.ExitStack) -> Decoder:
    """Opens a file with PyAV.

    Args:
        av: the package, which is imported where it is needed.
        file: seekable binary file.
        formats: names of the demuxers that may be used, with commas.
        stack: closes the container.

    Raises:
        DecodingError: ffmpeg's libraries cannot read the file, or it has no audio.
    """
    file.seek(0)
    # As the program is called: no other files, and an error where a decoder would guess.
    options = {"format_whitelist": formats, "protocol_whitelist": "file,pipe", "err_detect": "explode"}
    try:
        container = stack.enter_context(av.open(file, container_options=options))
    except (av.FFmpegError, ValueError, OSError) as error:
        raise DecodingError(_reason(error)) from error
    if not container.streams.audio:
        raise DecodingError("it has no audio stream")
    stream = container.streams.audio[0]
    frames = _frames(av, container, stream)
    try:
        first = next(frames, None)
    except (av.FFmpegError, ValueError) as error:
        raise DecodingError(_reason(error)) from error
    if first is None:
        raise DecodingError("it holds no samples")
    samples = _Samples(av, first, frames)
    format_name = f"{container.format.name} {stream.codec_context.name}"
    return Decoder("PyAV", format_name, first.sample_rate, first.layout.nb_channels, None, samples.read)


def _frames(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """Yields the decoded frames; where one ends in an error, so does the iteration."""
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise DecodingError("a packet is damaged")
        yield from packet.decode()


class _Samples:
    """Hands out any number of samples of frames that have their own sizes."""

    def __init__(self, av: Any, first: Any, frames: Iterator[Any]) -> None:
        self._av, self._frames = av, frames
        self._rate, self._layout = first.sample_rate, first.layout.name
        self._num_channels = first.layout.nb_channels
        self._resampler = av.AudioResampler(format="flt", layout=first.layout, rate=first.sample_rate)
        self._held = [self._converted(first)]
        self._num_held = len(self._held[0])
        self._failure: DecodingError | None = None

    def read(self, num_samples: int) -> np.ndarray:
        while self._num_held < num_samples:
            try:
                block = self._next_block()
            except DecodingError:
                if self._num_held:  # first what precedes the damage; the next call comes to it again
                    break
                raise
            if block is None:
                break
            self._held.append(block)
            self._num_held += len(block)
        held_NC = np.concatenate(self._held) if self._held else np.zeros((0, self._num_channels), np.float32)
        self._held = [held_NC[num_samples:]]
        self._num_held = len(self._held[0])
        return held_NC[:num_samples]

    def _next_block(self) -> np.ndarray | None:
        if self._failure is not None:
            raise self._failure
        try:
            frame = next(self._frames, None)
            return None if frame is None else self._converted(frame)
        except DecodingError as error:
            self._failure = error
        except (self._av.FFmpegError, ValueError) as error:
            self._failure = DecodingError(_reason(error))
            self._failure.__cause__ = error
        raise self._failure

    def _converted(self, frame: Any) -> np.ndarray:
        if (frame.sample_rate, frame.layout.name) != (self._rate, self._layout):
            raise DecodingError(
                f"it goes on at {frame.sample_rate} Hz in {frame.layout.name}, after {self._rate} Hz in {self._layout}"
            )
        frame.pts = None  # timestamps with gaps would make the converter insert silence
        blocks = [one.to_ndarray().reshape(-1, self._num_channels) for one in self._resampler.resample(frame)]
        return np.concatenate(blocks) if blocks else np.zeros((0, self._num_channels), np.float32)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
