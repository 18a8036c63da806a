"""Clips of a manifest one by one: waveform, digest and targets; decoded clips stay in memory within a budget."""
# Shapes: N samples, at 16 kHz unless said otherwise.

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import Mono
from audiollm.data.conversation.audio_parts import CLIP_AUDIO_KEYS, clip_part
from audiollm.data.conversation.types import AudioPart
from audiollm.data.files.hashing import file_sha256
from audiollm.data.manifest import Manifest, RecordError
from audiollm.data.unread_keys import unread_keys
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.training.loop.errors import DataError

from .targets import ClipTargets, parse_targets

_STEPS = 32768  # 16-bit integers from zero to full scale


@dataclass(frozen=True)
class Clip:
    """A record whose recording and fields are in order; its waveform stays with the reader."""

    number: int  # in the manifest
    where: str  # file and line
    targets: ClipTargets
    num_samples: int
    audio_digest: str  # SHA-256 of the recording as it is stored
    sample_rate: int = SAMPLE_RATE  # Hz, of its samples

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.num_samples / self.sample_rate


class ClipReader:
    """Reads one record's targets or sound when asked for it; safe to use from several threads.

    Args:
        manifest: the records.
        mono: of several channels, their "mean" or the "first".
        cache_bytes: memory for decoded clips.
        sample_rate: of the waveforms, in Hz.
    """

    def __init__(self, manifest: Manifest, *, mono: Mono, cache_bytes: int, sample_rate: int = SAMPLE_RATE) -> None:
        self.manifest = manifest
        self.sample_rate = sample_rate
        self._mono = mono
        self._cache = WaveformCache(cache_bytes)

    def record(self, number: int) -> Mapping[str, Any]:
        """The record as it is written.

        Raises:
            RecordError: it is not one.
        """
        record = self.manifest[number]
        if not isinstance(record, Mapping):
            raise RecordError(self.where(number), "a record is an object with `audio` and what to learn of it")
        return record

    def where(self, number: int) -> str:
        """File and line."""
        return self.manifest.where(number)

    def unread_keys(self, number: int) -> list[str]:
        """Keys of a record that nothing reads."""
        return unread_keys(self.record(number))

    def clip(self, number: int, max_seconds: float | None = None) -> Clip:
        """Reads all of a record: decodes its recording, parses its targets for so long a clip, and hashes it.

        Raises:
            DataError: the recording cannot be used, or is longer than ``max_seconds``, which its header tells before it
                is decoded.
            RecordError: the record cannot be read.
            TargetError: fields are wrong.
            OSError: the recording's file cannot be read.
        """
        if max_seconds is not None:
            self._check_length(number, max_seconds)
        num_samples = len(self.waveform(number))
        targets = self.targets(number, num_samples / self.sample_rate)
        digest = self.audio_digest(number)
        return Clip(number, self.where(number), targets, num_samples, digest, self.sample_rate)

    def targets(self, number: int, duration_seconds: float | None = None) -> ClipTargets:
        """What the record says of its clip; see `parse_targets`.

        Raises:
            RecordError: the record cannot be read.
            TargetError: fields are wrong.
        """
        return parse_targets(
            self.record(number), number=number, where=self.where(number), duration_seconds=duration_seconds
        )

    def waveform(self, number: int) -> Tensor:
        """float32 ``[N]``, the same whether it is in memory or has to be decoded.

        Raises:
            DataError: the recording cannot be used; the message names record and field.
        """
        cached = self._cache.get(number)
        if cached is not None:
            return cached
        try:
            waveform, _ = self._audio(number).load(self.sample_rate, self._mono)
        except (AudioError, RecordError) as error:
            raise DataError(str(error)) from error
        if not len(waveform):  # of an array: a file without samples is an error of its own
            raise DataError(f"{self.where(number)}: audio: is empty")
        return self._cache.keep(number, waveform)

    def _check_length(self, number: int, max_seconds: float) -> None:
        try:
            seconds = self._audio(number).probe().duration_seconds
        except (AudioError, RecordError) as error:
            raise DataError(str(error)) from error
        if seconds > max_seconds:
            raise DataError(
                f"{self.where(number)}: audio: lasts {seconds:.2f} s, longer than max_seconds={max_seconds:g}; cut it"
            )

    def audio_digest(self, number: int) -> str:
        """SHA-256 of the recording as it is stored, which unlike decoded samples is the same on every machine.

        Raises:
            RecordError: the record has no audio.
            OSError: its file cannot be read.
        """
        part = self._audio(number)
        if part.array is None:
            whole = file_sha256(part.path) if part.path is not None else hashlib.sha256(part.bytes or b"").hexdigest()
            return f"{whole} {json.dumps(part.cut)}" if part.cut else whole
        assert part.array is not None  # the only kind left
        return hashlib.sha256(np.ascontiguousarray(part.array).tobytes()).hexdigest()

    def _audio(self, number: int) -> AudioPart:
        record, where = self.record(number), self.where(number)
        if all(record.get(key) is None for key in CLIP_AUDIO_KEYS):
            raise RecordError(where, "audio: is missing; give a path, bytes, or samples with their sampling_rate")
        part = clip_part(record, where, self.manifest.base_dir(number))
        if part.codes is not None:
            raise RecordError(where, "audio: holds codes; a tokenizer learns to make them, so it needs the sound")
        return part


class WaveformCache:
    """Waveforms as 16-bit integers, each scaled by a power of two: 16-bit recordings at 16 kHz stay exact.

    What is in stays in. Epochs visit every clip in a new order, so evicting the least recently used would evict
    most clips just before they are wanted.

    Args:
        max_bytes: no more is kept than this.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._clips: dict[int, tuple[np.ndarray, float]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._clips)

    def get(self, number: int) -> Tensor | None:
        """float32 ``[N]``, or None if the clip is not in memory."""
        kept = self._clips.get(number)
        return None if kept is None else _as_floats(*kept)

    def keep(self, number: int, waveform: Tensor) -> Tensor:
        """Keeps a clip if there is room; returns it as `get` would, so that room makes no difference."""
        samples, scale = _as_integers(waveform)
        with self._lock:
            if number not in self._clips and self._num_bytes + samples.nbytes <= self._max_bytes:
                self._clips[number] = (samples, scale)
                self._num_bytes += samples.nbytes
        return _as_floats(samples, scale)


def _as_integers(waveform: Tensor) -> tuple[np.ndarray, float]:
    peak = float(waveform.abs().max())
    scale = 2.0 ** math.ceil(math.log2(peak)) if peak > 0 else 1.0
    samples = (waveform.numpy() * np.float32(_STEPS / scale)).round()
    # A peak of exactly full scale would wrap around to the negative end.
    return samples.clip(-_STEPS, _STEPS - 1).astype(np.int16), scale


def _as_floats(samples: np.ndarray, scale: float) -> Tensor:
    return torch.from_numpy(samples.astype(np.float32) * np.float32(scale / _STEPS))
