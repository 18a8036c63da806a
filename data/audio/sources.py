"""What a recording comes as: a path, the bytes of a file, or a binary file object; and what is said of a bad one."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from typing import Any, BinaryIO

AudioSource = str | os.PathLike[str] | bytes | BinaryIO


class AudioError(ValueError):
    """A recording that cannot be used; the message names it and says why.

    Args:
        source: the file's path, or what stands for it.
        reason: what is wrong, and what to do about it where that is known.
    """

    def __init__(self, source: str, reason: str = "") -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}" if self.reason else self.source


def source_name(source: AudioSource) -> str:
    """Returns what an error message calls a source: its path, or a description of what has none."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<file object>"


def open_binary(source: AudioSource, name: str, stack: contextlib.ExitStack) -> tuple[BinaryIO, int]:
    """Opens a source; returns a seekable file and its size, which is at least 1.

    Raises:
        AudioError: missing, a directory, empty, not a regular file, not to be opened.
        TypeError: no audio source.
    """
    file: BinaryIO
    if isinstance(source, (str, os.PathLike)):
        file = stack.enter_context(_open_path(os.fspath(source), name))
    elif isinstance(source, bytes):
        file = io.BytesIO(source)
    elif hasattr(source, "read"):
        seekable = getattr(source, "seekable", None)
        file = source if seekable is not None and seekable() else io.BytesIO(source.read())
    else:
        raise TypeError(f"an audio source is a path, bytes or a binary file object, not {type(source).__name__}")
    num_bytes = file.seek(0, os.SEEK_END)
    if num_bytes == 0:
        raise AudioError(name, "is empty (0 bytes)")
    return file, num_bytes


def _open_path(path: str, name: str) -> BinaryIO:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(name, "is a directory; give an audio file")
        if not stat.S_ISREG(mode):
            raise AudioError(name, "is not a regular file; for a pipe or device, pass an open binary file object")
        # Unbuffered, because libsndfile reads from the descriptor itself.
        return open(path, "rb", buffering=0)
    except FileNotFoundError as error:
        is_url = "://" in path
        raise AudioError(name, "is a URL; download the file first" if is_url else "no such file") from error
    except OSError as error:
        raise AudioError(name, f"cannot be opened: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(name, f"is not a valid path: {error}") from error


class FileView:
    """A range of a file behind a prefix, as a file of its own without a name (from which decoders guess a format).

    Args:
        file: seekable binary file; its position is changed.
        start: first byte of the range.
        end: one past its last byte.
        prefix: bytes in front of the range.
    """

    def __init__(self, file: BinaryIO, start: int, end: int, prefix: bytes = b"") -> None:
        self._file, self._prefix, self._start, self._end, self._position = file, prefix, start, end, 0
        self.size = len(prefix) + max(0, end - start)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, num_bytes: int = -1) -> bytes:
        left = max(0, self.size - self._position)
        num_bytes = left if num_bytes < 0 else min(num_bytes, left)
        data = self._prefix[self._position : self._position + num_bytes]
        if len(data) < num_bytes:
            self._file.seek(self._start + self._position + len(data) - len(self._prefix))
            data += self._file.read(num_bytes - len(data))
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
