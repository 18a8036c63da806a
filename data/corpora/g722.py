"""G.722 speech (ITU-T G.722, 64 kbit/s, 16 kHz), which libsndfile cannot read.

The bitstream has no header: two samples per byte. Decoding is integer arithmetic, so every correct decoder returns the
same samples; libavcodec's is used, through an ``ffmpeg`` program or the PyAV package.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .clips import CorpusError

BYTES_PER_SECOND = 8000  # two samples per byte, 16 kHz by the standard


def duration_seconds(path: Path) -> float:
    """Length of a headerless G.722 file, from its size."""
    return path.stat().st_size / BYTES_PER_SECOND


def decode_g722(path: Path) -> Tensor:
    """Decodes a raw G.722 file.

    Args:
        path: the file.

    Returns:
        Waveform at 16 kHz, float32 in [-1, 1), ``[N]``.

    Raises:
        CorpusError: if neither ffmpeg nor PyAV is there, or the decoder refuses the file.
    """
    ffmpeg = shutil.which("ffmpeg")
    samples = _with_ffmpeg(ffmpeg, path) if ffmpeg else _with_pyav(path)
    if not len(samples):
        raise CorpusError(f"{path} holds no G.722 audio")
    # As libsndfile scales 16 bits, so that recordings of all formats are on one scale.
    return torch.from_numpy(samples.astype(np.float32) / 32768.0)


def _with_ffmpeg(ffmpeg: str, path: Path) -> np.ndarray:
    command = [ffmpeg, "-nostdin", "-loglevel", "error", "-f", "g722", "-i", str(path), "-f", "s16le", "-"]
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode != 0:
        message = result.stderr.decode(errors="replace").strip()
        raise CorpusError(f"ffmpeg cannot decode {path}: {message}")
    return np.frombuffer(result.stdout, "<i2")


def _with_pyav(path: Path) -> np.ndarray:
    try:
        av = importlib.import_module("av")  # not a dependency: only these corpora need it
    except ImportError as error:
        raise CorpusError(
            "G.722 recordings need a decoder: run `pip install 'audiollm[corpora]'` (PyAV), or install ffmpeg"
        ) from error
    try:
        with av.open(str(path), format="g722") as container:
            blocks = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    except av.FFmpegError as error:
        raise CorpusError(f"PyAV cannot decode {path}: {error}") from error
    return np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
