"""Recordings of a manifest, checked once, and the segments that are cut out of them."""
# Shapes: N samples at 16 kHz, B segments, T tokens, D latent size.

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import Mono
from audiollm.data.manifest import RecordError, open_manifest
from audiollm.data.unread_keys import unread_keys, warn_of_unread_keys
from audiollm.tokenizer.losatok.configuration import SAMPLE_RATE, TOKEN_SAMPLES, count_tokens
from audiollm.training.audio_tokenizer.clips import ClipReader
from audiollm.training.decoder.vocoder.segments import SegmentOrder
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.errors import DataError

logger = logging.getLogger(__name__)

_LISTED_PROBLEMS = 20


@dataclass(frozen=True)
class _Entry:
    """A recording that can be used."""

    record: int
    id: str
    num_samples: int
    digest: str


@dataclass(frozen=True)
class _Checked:
    """What one process found out about its share of the records."""

    entries: list[_Entry]
    problems: dict[int, str]
    unread: Counter[str]


class Recordings:
    """The usable recordings of a manifest, all of them decoded once when this is made.

    Args:
        source: whatever `open_manifest` takes.
        mono: what a recording of several channels becomes.
        min_seconds: shorter ones cannot be used.
        on_bad: whether records that cannot be used are an error, or left out and told.
        cache_bytes: memory for waveforms, in this process.
        process_index: with ``num_processes``, which share of the records this process checks.
        num_processes: how many check together; all of them must make this object.
        gather: joins every process's list to one, such as ``accelerate.utils.gather_object``.

    Raises:
        DataError: listing the records that cannot be used, or if none is left.
        RecordError: no such file, or a format that is not read.
    """

    def __init__(
        self,
        source: str,
        *,
        mono: Mono = "mean",
        min_seconds: float = 0.2,
        on_bad: Literal["error", "skip"] = "error",
        cache_bytes: int = 1 << 29,
        process_index: int = 0,
        num_processes: int = 1,
        gather: Callable[[list[Any]], list[Any]] = lambda mine: mine,
    ) -> None:
        self._reader = ClipReader(open_manifest(source), mono=mono, cache_bytes=cache_bytes)
        numbers = list(range(len(self._reader.manifest)))
        mine = share_of_process(numbers, process_index, num_processes)
        found: list[_Checked] = gather([self._check(mine, min_seconds)])
        problems = {number: text for one in found for number, text in one.problems.items()}
        self.num_skipped = len(problems)
        _report(self.name, len(numbers), problems, on_bad)
        self._entries = sorted((entry for one in found for entry in one.entries), key=lambda entry: entry.record)
        if not self._entries:
            raise DataError(f"{self.name} holds no recordings")
        if process_index == 0:
            warn_of_unread_keys(self.name, sum((one.unread for one in found), Counter()))

    def _check(self, numbers: Sequence[int], min_seconds: float) -> _Checked:
        checked = _Checked([], {}, Counter())
        for number in numbers:
            try:
                record = self._reader.record(number)
                waveform = self._reader.waveform(number)
                seconds = len(waveform) / SAMPLE_RATE
                if seconds < min_seconds:
                    raise DataError(
                        f"{self._reader.where(number)}: audio: lasts {seconds:.3f} s, shorter than "
                        f"min_seconds={min_seconds:g}"
                    )
                digest = self._reader.audio_digest(number)
            except (AudioError, DataError, RecordError, OSError) as error:
                checked.problems[number] = str(error)
                continue
            checked.unread.update(unread_keys(record))
            named = str(record.get("id", self._reader.where(number)))
            checked.entries.append(_Entry(number, named, len(waveform), digest))
        return checked

    @property
    def name(self) -> str:
        """What messages call the source."""
        return self._reader.manifest.name

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all recordings, in order."""
        return hashlib.sha256("".join(entry.digest for entry in self._entries).encode()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """What a run writes down of its data."""
        seconds = sum(entry.num_samples for entry in self._entries) / SAMPLE_RATE
        return {
            "recordings": self.fingerprint,
            "num_clips": len(self),
            "num_skipped": self.num_skipped,
            "hours": round(seconds / 3600, 4),
        }

    def __len__(self) -> int:
        return len(self._entries)

    def id(self, index: int) -> str:
        """The record's own id, or file and line."""
        return self._entries[index].id

    def num_tokens(self, index: int) -> int:
        """T, without decoding it."""
        return count_tokens(self._entries[index].num_samples)

    def waveform(self, index: int) -> Tensor:
        """float32 ``[N]``.

        Raises:
            DataError: if the recording can no longer be read.
        """
        return self._reader.waveform(self._entries[index].record)


def _report(name: str, num_records: int, problems: dict[int, str], on_bad: str) -> None:
    if not problems:
        return
    lines = [f"  {problems[number]}" for number in sorted(problems)]
    more = [f"  … and {len(lines) - _LISTED_PROBLEMS} more"] if len(lines) > _LISTED_PROBLEMS else []
    told = "\n".join([*lines[:_LISTED_PROBLEMS], *more])
    summary = f"{len(problems)} of {num_records} records of {name} cannot be trained on"
    if on_bad == "skip" and len(problems) < num_records:
        logger.warning("%s and are left out:\n%s", summary, told)
        return
    raise DataError(f"{summary}:\n{told}\nrepair or remove them, or set on_bad: skip")


@dataclass(frozen=True)
class SegmentPass:
    """The segments of one forward and backward pass."""

    ids: list[str]  # of the recordings that they are from
    waveforms: Tensor  # [B, N] float32
    noise: Tensor  # [B, T, D] float32, standard normal

    def to(self, device: torch.device) -> SegmentPass:
        """A copy on a device."""
        return SegmentPass(self.ids, self.waveforms.to(device), self.noise.to(device))


def segment_order(recordings: Recordings, segment_tokens: int, segments_per_update: int, seed: int) -> SegmentOrder:
    """Where segments are cut out, as pure functions of seed, update and position in it."""
    lengths = [recordings.num_tokens(index) for index in range(len(recordings))]
    return SegmentOrder(lengths, segment_tokens, segments_per_update, seed)


def make_pass(
    recordings: Recordings, order: SegmentOrder, step: int, positions: Sequence[int], latent_size: int
) -> SegmentPass:
    """Cuts segments of an update out of the recordings, and draws their noise; silence is behind a recording's end."""
    ids, waveforms, noise = [], [], []
    for position in positions:
        clip, first, generator = order.segment(step, position)
        start, length = first * TOKEN_SAMPLES, order.segment_frames * TOKEN_SAMPLES
        waveform = recordings.waveform(clip)[start : start + length]
        ids.append(recordings.id(clip))
        waveforms.append(F.pad(waveform, (0, length - len(waveform))))
        noise.append(torch.randn(order.segment_frames, latent_size, generator=generator))
    return SegmentPass(ids, torch.stack(waveforms), torch.stack(noise))
