"""Recordings of a codec's training: decoded when needed, kept within a budget, and cut into segments."""
# Shapes: B segments, N samples.

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from audiollm.data.audio.channels import Mono
from audiollm.data.audio.opening import AudioError
from audiollm.data.conversation.audio_parts import clip_part
from audiollm.data.manifest import RecordError
from audiollm.data.tokenizing.source import open_corpus
from audiollm.training.audio_tokenizer.clips import WaveformCache
from audiollm.training.decoder.vocoder.segments import SegmentOrder
from audiollm.training.loop.errors import DataError

NUM_LOADERS = 2  # threads; decoding and resampling work without Python's lock
_LISTED_PROBLEMS = 20


@dataclass(frozen=True)
class CodecPass:
    """The segments of one forward and backward pass."""

    ids: list[str]  # file and line of the recordings that they are from
    positions: Tensor  # [B] int64, place of each segment in the update
    waveform: Tensor  # [B, N] float32

    def to(self, device: torch.device) -> CodecPass:
        """A copy on a device."""
        return CodecPass(self.ids, self.positions.to(device), self.waveform.to(device))


class CodecClips:
    """Recordings at one rate; all are decoded once before training, so that what is wrong is told then.

    Args:
        source: whatever `open_corpus` takes.
        sample_rate: Hz.
        mono: of several channels, their "mean" or the "first".
        cache_bytes: memory for decoded recordings.
        progress: show a progress bar.

    Raises:
        DataError: listing the recordings that cannot be used.
    """

    def __init__(self, source: Any, *, sample_rate: int, mono: Mono, cache_bytes: int, progress: bool = False) -> None:
        self._manifest = open_corpus(source)
        self._sample_rate = sample_rate
        self._mono = mono
        self._cache = WaveformCache(cache_bytes)
        self.fingerprint = self._manifest.fingerprint
        numbers = range(len(self._manifest))
        with ThreadPoolExecutor(NUM_LOADERS, thread_name_prefix="load") as executor:
            found = list(tqdm(executor.map(self._length, numbers), total=len(numbers), disable=not progress))
        problems = [one for one in found if isinstance(one, str)]
        if problems or not found:
            listed = "\n".join(f"  {one}" for one in problems[:_LISTED_PROBLEMS])
            raise DataError(
                f"{len(problems)} of {len(found)} records of {self._manifest.name} cannot be trained on:\n{listed}"
                if found
                else f"{self._manifest.name} holds no records"
            )
        self.lengths = [int(one) for one in found]

    def __len__(self) -> int:
        return len(self.lengths)

    def _length(self, number: int) -> int | str:
        try:
            return len(self.waveform(number))
        except (AudioError, RecordError) as error:
            return str(error)

    def where(self, number: int) -> str:
        """File and line."""
        return self._manifest.where(number)

    def waveform(self, number: int) -> Tensor:
        """float32 ``[N]``.

        Raises:
            AudioError: it cannot be read.
            RecordError: the record has no audio.
        """
        cached = self._cache.get(number)
        if cached is not None:
            return cached
        where = self.where(number)
        part = clip_part(self._manifest[number], where, self._manifest.base_dir(number))
        if part.codes is not None:
            raise RecordError(where, "audio: holds codes; a codec learns to make them, so it needs the sound")
        waveform, _ = part.load(self._sample_rate, self._mono)
        if not len(waveform):
            raise RecordError(where, "audio: is empty")
        return self._cache.keep(number, waveform)

    def frames(self, frame_samples: int) -> list[int]:
        """Frames of each, the last one filled up."""
        return [-(-length // frame_samples) for length in self.lengths]


def cut_segments(
    clips: CodecClips, order: SegmentOrder, step: int, positions: Sequence[int], frame_samples: int
) -> CodecPass:
    """Cuts segments of an update out of the recordings, with silence behind a recording's end."""
    num_samples = order.segment_frames * frame_samples
    ids, rows = [], []
    for position in positions:
        clip, first, _ = order.segment(step, position)
        row = clips.waveform(clip)[first * frame_samples :][:num_samples]
        rows.append(F.pad(row, (0, num_samples - len(row))))
        ids.append(clips.where(clip))
    return CodecPass(ids, torch.tensor(positions), torch.stack(rows))
