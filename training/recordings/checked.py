"""Recordings of a manifest, all of them decoded and checked once before a training starts."""
# Shapes: N samples.

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm

from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import Mono
from audiollm.data.manifest import RecordError
from audiollm.data.tokenizing.source import open_corpus
from audiollm.data.unread_keys import unread_keys, warn_of_unread_keys
from audiollm.training.audio_tokenizer.clips import ClipReader
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.errors import DataError

logger = logging.getLogger(__name__)

NUM_LOADERS = 2  # threads; decoding and resampling work without Python's lock
_LISTED_PROBLEMS = 20


@dataclass(frozen=True)
class _Entry:
    """A recording that can be used."""

    record: int
    id: str
    num_samples: int
    digest: str
    unread: list[str]


@dataclass(frozen=True)
class _Problem:
    """Why a recording cannot be used."""

    record: int
    message: str


class Recordings:
    """The usable recordings of a manifest at one rate, all of them decoded once when this is made.

    Args:
        source: whatever `open_corpus` takes.
        sample_rate: Hz.
        mono: what a recording of several channels becomes.
        min_seconds: shorter ones cannot be used, and none without a sample.
        on_bad: whether records that cannot be used are an error, or left out and told.
        cache_bytes: memory for waveforms, in this process.
        process_index: with ``num_processes``, which share of the records this process checks.
        num_processes: how many check together; all of them must make this object.
        gather: joins every process's list to one, such as ``accelerate.utils.gather_object``.
        progress: show a progress bar.

    Raises:
        DataError: listing the records that cannot be used, or if none is left.
        RecordError: no such file, or a format that is not read.
    """

    def __init__(
        self,
        source: Any,
        *,
        sample_rate: int,
        mono: Mono = "mean",
        min_seconds: float = 0.0,
        on_bad: Literal["error", "skip"] = "error",
        cache_bytes: int = 1 << 29,
        process_index: int = 0,
        num_processes: int = 1,
        gather: Callable[[list[Any]], list[Any]] = lambda mine: mine,
        progress: bool = False,
    ) -> None:
        self.sample_rate = sample_rate
        self._reader = ClipReader(open_corpus(source), mono=mono, cache_bytes=cache_bytes, sample_rate=sample_rate)
        self._min_seconds = min_seconds
        numbers = list(range(len(self._reader.manifest)))
        if not numbers:
            raise DataError(f"{self.name} holds no records")
        found = gather(self._check_all(share_of_process(numbers, process_index, num_processes), progress))
        found = sorted(found, key=lambda one: one.record)
        problems = [one.message for one in found if isinstance(one, _Problem)]
        self.num_skipped = len(problems)
        _report(self.name, len(numbers), problems, on_bad)
        self._entries = [one for one in found if isinstance(one, _Entry)]
        if process_index == 0:
            warn_of_unread_keys(self.name, Counter(key for one in self._entries for key in one.unread))

    def _check_all(self, numbers: Sequence[int], progress: bool) -> list[_Entry | _Problem]:
        with ThreadPoolExecutor(NUM_LOADERS, thread_name_prefix="load") as executor:
            checks = executor.map(self._check, numbers)
            return list(tqdm(checks, total=len(numbers), disable=not progress, unit="recording", leave=False))

    def _check(self, number: int) -> _Entry | _Problem:
        try:
            record = self._reader.record(number)
            num_samples = len(self._reader.waveform(number))
            seconds = num_samples / self.sample_rate
            if seconds < self._min_seconds:
                raise DataError(
                    f"{self._reader.where(number)}: audio: lasts {seconds:.3f} s, shorter than "
                    f"min_seconds={self._min_seconds:g}"
                )
            digest = self._reader.audio_digest(number)
        except (AudioError, DataError, RecordError, OSError) as error:
            return _Problem(number, str(error))
        named = str(record.get("id", self._reader.where(number)))
        return _Entry(number, named, num_samples, digest, unread_keys(record))

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
        seconds = sum(entry.num_samples for entry in self._entries) / self.sample_rate
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

    def num_samples(self, index: int) -> int:
        """N, without decoding it."""
        return self._entries[index].num_samples

    def waveform(self, index: int) -> Tensor:
        """float32 ``[N]``.

        Raises:
            DataError: if the recording can no longer be read.
        """
        return self._reader.waveform(self._entries[index].record)


def _report(name: str, num_records: int, problems: Sequence[str], on_bad: str) -> None:
    if not problems:
        return
    lines = [f"  {problem}" for problem in problems]
    more = [f"  … and {len(lines) - _LISTED_PROBLEMS} more"] if len(lines) > _LISTED_PROBLEMS else []
    told = "\n".join([*lines[:_LISTED_PROBLEMS], *more])
    summary = f"{len(problems)} of {num_records} records of {name} cannot be trained on"
    if on_bad == "skip" and len(problems) < num_records:
        logger.warning("%s and are left out:\n%s", summary, told)
        return
    raise DataError(f"{summary}:\n{told}\nrepair or remove them, or set on_bad: skip")


class RecordingSettings(Protocol):
    """What the settings of a run say of its recordings."""

    @property
    def mono(self) -> Mono: ...
    @property
    def min_seconds(self) -> float: ...
    @property
    def on_bad(self) -> Literal["error", "skip"]: ...
    @property
    def cache_megabytes(self) -> int: ...


def read_recordings(accelerator: Accelerator, config: RecordingSettings, sample_rate: int, source: str) -> Recordings:
    """The recordings of a run at a rate in Hz; its processes check them together, so all call it.

    Raises:
        DataError: listing the records that cannot be used, or if none is left.
        RecordError: no such file, or a format that is not read.
    """
    return Recordings(
        source,
        sample_rate=sample_rate,
        mono=config.mono,
        min_seconds=config.min_seconds,
        on_bad=config.on_bad,
        cache_bytes=config.cache_megabytes * 2**20,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
        gather=gather_object,
        progress=accelerator.is_main_process,
    )
