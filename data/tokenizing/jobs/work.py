"""What every worker of a job knows, and what it tells about a unit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import Mono
from audiollm.data.manifest import JOB_FILE, Manifest, RecordError
from audiollm.tokenizer.base import AudioTokenizer

from .plan import Unit
from .shards import ShardFacts, shard_file

OpenAudioTokenizer = Callable[[str | None], AudioTokenizer]
"""Loads the audio tokenizer onto a device (None: the first GPU, or the CPU). A function of a module: it is pickled."""
Outcome = Literal["done", "busy", "hopeless", "bad record", "failed"]


@dataclass(frozen=True)
class Job:
    """A corpus to tokenize, as all workers know it.

    Attributes:
        folder: where the shards go.
        corpus: the records.
        fingerprint: of the audio tokenizer.
        codebook_size: codes are below this.
        mono: which waveform of several channels.
        batch_size: segments encoded at once.
        num_decoders: threads of a worker that decode, for each unit at hand.
        skip_bad: list bad records instead of stopping at the first.
        settings: what must be equal for a run to go on with it, the plan's hash among it.
        num_shards: units of the job.
    """

    folder: Path
    corpus: Manifest
    fingerprint: str
    codebook_size: int
    mono: Mono
    batch_size: int
    num_decoders: int
    skip_bad: bool
    settings: Mapping[str, Any]
    num_shards: int

    @property
    def identity(self) -> str:
        """Hash of the settings, which each shard holds."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    @property
    def state_folder(self) -> Path:
        """Where locks and notes lie."""
        return (self.folder / JOB_FILE).parent

    def shard_path(self, unit: Unit) -> Path:
        """Where a unit's shard goes."""
        return shard_file(self.folder, unit.number, self.num_shards)


@dataclass
class UnitResult:
    """What became of a unit.

    Attributes:
        number: of the unit.
        outcome: "busy": another process holds it; "hopeless": its workers died too often.
        facts: of its shard, if it is done.
        reason: why it is not; for a bad record what is wrong with it.
        where: the place of a bad record.
        is_audio: whether a bad record is one for its recording.
        unread: in how many records each key is that nothing reads.
        worker: who worked on it.
        started: when, in seconds since the epoch.
        wall_seconds: spent on it.
        encoding_seconds: of them in the audio tokenizer.
        decoders_idle_seconds: of them that the decoding threads waited for the encoder.
    """

    number: int
    outcome: Outcome
    facts: ShardFacts | None = None
    reason: str = ""
    where: str = ""
    is_audio: bool = False
    unread: Mapping[str, int] = field(default_factory=dict)
    worker: str = ""
    started: float = 0.0
    wall_seconds: float = 0.0
    encoding_seconds: float = 0.0
    decoders_idle_seconds: float = 0.0

    def raise_error(self, path: Path) -> None:
        """Raises what stopped the unit, if it is such that the job has to stop.

        Raises:
            AudioError, RecordError: a bad record.
            WorkerError: anything else; it names the shard.
        """
        if self.outcome == "bad record":
            raise (AudioError if self.is_audio else RecordError)(self.where, self.reason)
        if self.outcome == "failed":
            raise WorkerError(self.reason if str(path) in self.reason else f"{path}: {self.reason}")


class WorkerError(ValueError):
    """A worker could not go on; what is done is kept."""


@dataclass
class Utilization:
    """How busy encoders and decoders were, over all workers, from the first unit of each to its last."""

    encoding_seconds: float = 0.0
    decoders_idle_seconds: float = 0.0
    wall_seconds: float = 0.0
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, result: UnitResult) -> None:
        """Adds a unit; one whose shard was there already took no time."""
        if not result.worker:
            return
        begin, end = result.started, result.started + result.wall_seconds
        earlier = self.spans.get(result.worker, (begin, end))
        self.spans[result.worker] = min(begin, earlier[0]), max(end, earlier[1])
        self.wall_seconds += result.wall_seconds
        self.encoding_seconds += result.encoding_seconds
        self.decoders_idle_seconds += result.decoders_idle_seconds

    @property
    def encoder_idle_share(self) -> float:
        """Of the workers' time: the audio tokenizer did nothing, for want of audio or while shards were written."""
        seconds = sum(end - begin for begin, end in self.spans.values())
        return max(0.0, 1 - self.encoding_seconds / seconds) if seconds else 0.0

    @property
    def decoders_idle_share(self) -> float:
        """Of the decoding threads' time: they waited, because enough audio lay ready."""
        return self.decoders_idle_seconds / self.wall_seconds if self.wall_seconds else 0.0
