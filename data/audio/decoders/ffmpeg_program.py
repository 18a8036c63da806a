"""The ``ffmpeg`` program: it writes 32-bit float AU to a pipe, a header with rate and channels, then the samples."""
# Shapes: n samples, C channels.

from __future__ import annotations

import contextlib
import re
import struct
import subprocess
import tempfile
import threading
from typing import Any

import numpy as np

from .base import Decoder, DecodingError

AU_HEADER_BYTES = 24
_ADDRESS = re.compile(r"(?<=[\w:]) @ 0x[0-9a-f]+")


def open_with_program(
    executable: str, path: str, formats: str, stack: contextlib.ExitStack, max_seconds: float | None = None
) -> Decoder:
    """Starts ffmpeg on a file.

    Args:
        executable: the program.
        path: absolute path of the file.
        formats: names of the demuxers that may be used, with commas.
        stack: ends the process.
        max_seconds: by the clock, after which it is ended; what reads from it then meets an error. ``None``: no bound.

    Raises:
        DecodingError: ffmpeg cannot be started, or cannot read the file.
    """
    messages = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    command = [executable, "-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file,pipe"]
    command += ["-format_whitelist", formats, "-i", f"file:{path}", "-map", "0:a:0"]
    command += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise DecodingError(f"cannot be started: {error.strerror}") from error
    stack.callback(_stop, process)
    if max_seconds is not None:
        # A thread, because reading from the pipe waits for as long as nothing comes.
        timer = threading.Timer(max_seconds, process.kill)
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
    pipe = process.stdout
    assert pipe is not None  # we asked for it
    header = pipe.read(AU_HEADER_BYTES)
    if len(header) < AU_HEADER_BYTES:
        process.wait()
        raise DecodingError(_first_line(messages, path))
    offset, _, _, sample_rate, num_channels = struct.unpack(">4x5I", header)
    pipe.read(offset - AU_HEADER_BYTES)
    bytes_per_sample = 4 * num_channels

    def read(num_samples: int) -> np.ndarray:
        data = pipe.read(num_samples * bytes_per_sample)
        if not data and process.wait() != 0:
            raise DecodingError(_first_line(messages, path))
        samples = np.frombuffer(data[: len(data) // bytes_per_sample * bytes_per_sample], dtype=">f4")
        return samples.astype(np.float32).reshape(-1, num_channels)

    return Decoder("ffmpeg", "ffmpeg", sample_rate, num_channels, None, read)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdout is not None:
        process.stdout.close()
    process.kill()
    process.wait()


def _first_line(messages: Any, path: str) -> str:
    """What ffmpeg says first, without the places in its memory that it names with it, and without the path: who reads
    it knows the file by another name, or must not know ours."""
    messages.seek(0)
    lines = messages.read().decode("utf-8", "replace").strip().splitlines()
    return _ADDRESS.sub("", lines[0]).replace(f"file:{path}: ", "") if lines else "nothing"
