"""Which records make a unit of work: about so many hours of audio, cut in the order of the corpus."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from audiollm.data.conversation.parsing import is_conversation
from audiollm.data.manifest import Manifest, RecordError
from audiollm.data.tokenizing.tar_shards import TarShards

UNKNOWN_SECONDS = 10.0  # of a recording whose length nothing tells without opening it
BYTES_PER_SECOND = 32_000  # of a file whose length no record says: 16 bit at 16 kHz
MOST_RECORDS = 10_000  # of a unit
_SECONDS_KEYS = ("duration", "duration_seconds", "audio_seconds")


@dataclass(frozen=True)
class Unit:
    """Records that become one shard.

    Attributes:
        number: of the shard, from 0.
        start: first record, in the corpus or, if there is one, in the tar file.
        stop: one past the last; None: all.
        tar: which tar file of a corpus of those.
        repeated: records whose id an earlier one has → that one.
    """

    number: int
    start: int
    stop: int | None
    tar: int | None = None
    repeated: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How a corpus is cut.

    Attributes:
        stops: for each unit, one past its last record; the number of the next file for tar files.
        repeated: records whose id an earlier one has → that one. Empty for tar files, which nobody has opened yet.
        is_of_tars: whether each unit is a tar file.
    """

    stops: Sequence[int]
    repeated: Mapping[int, int]
    is_of_tars: bool

    def units(self) -> list[Unit]:
        """All units."""
        if self.is_of_tars:
            return [Unit(number, 0, None, tar=number) for number in range(len(self.stops))]
        starts = [0, *self.stops[:-1]]
        repeated = sorted(self.repeated)
        edges = np.searchsorted(repeated, [*starts, self.stops[-1]] if self.stops else [])
        return [
            Unit(number, start, stop, None, {n: self.repeated[n] for n in repeated[edges[number] : edges[number + 1]]})
            for number, (start, stop) in enumerate(zip(starts, self.stops, strict=True))
        ]

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON holds it."""
        repeated = {str(later): first for later, first in self.repeated.items()}
        return {"stops": list(self.stops), "repeated": repeated, "is_of_tars": self.is_of_tars}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Plan:
        """The plan that `to_dict` gave."""
        repeated = {int(later): first for later, first in value["repeated"].items()}
        return cls(value["stops"], repeated, value["is_of_tars"])


def make_plan(corpus: Manifest, shard_hours: float) -> Plan:
    """Cuts a corpus into units.

    The length of a recording is what its record says; else it follows from the size of its file, as if that held 16 bit
    at 16 kHz; else it counts as 10 s. No recording is opened. Each tar file is a unit, whatever its length.

    Args:
        corpus: the records; all of them are looked at, but for the sound that lies in them.
        shard_hours: of audio in a unit.
    """
    if isinstance(corpus, TarShards):
        return Plan(list(range(1, len(corpus.parts) + 1)), {}, is_of_tars=True)
    records = corpus.without_sound()
    stops: list[int] = []
    hashes = array("q")
    seconds, start = 0.0, 0
    for index in range(len(records)):
        record = _record(records, index)
        length = _seconds_of(record, corpus.base_dir(index))
        if index > start and (seconds + length > shard_hours * 3600 or index - start >= MOST_RECORDS):
            stops.append(index)
            seconds, start = 0.0, index
        seconds += length
        identifier = _id_of(record)
        hashes.append(index if identifier is None else hash(identifier))
    return Plan([*stops, len(records)], dict(_repeated(records, hashes)), is_of_tars=False)


def _record(records: Manifest, index: int) -> Any:
    """A record; None for one that cannot be read, which the worker who meets it rejects."""
    try:
        return records[index]
    except RecordError:
        return None


def _id_of(record: Any) -> str | None:
    value = record.get("id") if isinstance(record, Mapping) else record
    return None if value is None else str(value)


def _repeated(records: Manifest, hashes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Records whose id an earlier one has, and that one; hashes stand for ids, 8 bytes instead of a string each."""
    values = np.asarray(hashes, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    is_alike = values[order[1:]] == values[order[:-1]]
    first_of: dict[str | None, int] = {}
    for place in np.flatnonzero(is_alike).tolist():
        if not place or not is_alike[place - 1]:
            first_of = {_id_of(_record(records, int(order[place]))): int(order[place])}
        later = int(order[place + 1])
        first = first_of.setdefault(_id_of(_record(records, later)), later)
        if first != later:
            yield later, first


def _seconds_of(record: Any, base_dir: str | None) -> float:
    if is_conversation(record):
        return _number(record.get("audio_seconds")) or UNKNOWN_SECONDS
    if isinstance(record, Mapping):
        for key in _SECONDS_KEYS:
            if seconds := _number(record.get(key)):
                return seconds
        samples, rate = _number(record.get("num_samples")), _number(record.get("sample_rate"))
        if samples and rate:
            return samples / rate
        record = record.get("audio", record.get("audio_filepath", record.get("path")))
    if not isinstance(record, str):
        return UNKNOWN_SECONDS
    path = os.path.join(base_dir or "", record)
    return os.path.getsize(path) / BYTES_PER_SECOND if os.path.isfile(path) else UNKNOWN_SECONDS


def _number(value: Any) -> float:
    """A number of seconds or the like; 0 for what is none."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < 1e9 else 0.0
