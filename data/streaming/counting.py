"""How many records a source has, and some of them from all over it, without reading all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from audiollm.data.manifest import RecordError
from audiollm.data.sampling import spread

from .shards import Shard

COUNTED_BLOCKS = 16  # of a shard that does not say how many records it has
SAMPLED_SHARDS = SAMPLED_BLOCKS = 32  # each is read whole
_READERS = 16  # at once: a footer is little to read and long to wait for on a network's disk


@dataclass(frozen=True)
class NumRecords:
    """Records of a source.

    Attributes:
        count: how many.
        is_exact: or an estimate, by the length of lines all over the file.
    """

    count: int
    is_exact: bool

    def __str__(self) -> str:
        return f"{'' if self.is_exact else 'about '}{self.count:,}"


def count_records(shards: Sequence[Shard], on_damage: Callable[[RecordError], None]) -> NumRecords:
    """Counts by what the shards say of themselves, and of JSONL by some of its blocks; all of them, if they are few.

    Args:
        shards: of a source.
        on_damage: is told of a shard that cannot be counted; may raise.
    """
    with ThreadPoolExecutor(_READERS) as readers:
        counted = list(readers.map(_count, shards))
    total, is_exact = 0.0, True
    for found in counted:
        if isinstance(found, RecordError):
            on_damage(found)
        else:
            total += found[0]
            is_exact &= found[1]
    return NumRecords(round(total), is_exact)


def _count(shard: Shard) -> tuple[float, bool] | RecordError:
    try:
        if (count := shard.num_records) is not None:
            return count, True
        blocks = range(shard.num_blocks)
        looked_at = spread(blocks, COUNTED_BLOCKS)
        found = sum(len(shard.block(number)) for number in looked_at)
        return (found, True) if len(looked_at) == len(blocks) else (found * len(blocks) / len(looked_at), False)
    except RecordError as error:
        return error


def sample(
    shards: Sequence[Shard], counted: NumRecords, num_records: int, on_damage: Callable[[RecordError], None]
) -> Iterator[tuple[int, int, int]]:
    """Records from all over a source: the same on every machine.

    Args:
        shards: of the source.
        counted: its records.
        num_records: about how many to take; a source that is known to have no more is taken whole.
        on_damage: is told of a shard that cannot be read; may raise.

    Yields:
        Shard, block and row.
    """
    is_small = counted.is_exact and counted.count <= num_records
    for number, block_number, wanted in _sampled_blocks(shards, None if is_small else num_records, on_damage):
        try:
            num_rows = len(shards[number].block(block_number))
        except RecordError as error:
            on_damage(error)
            continue
        for row in spread(range(num_rows), num_rows if wanted is None else wanted):
            yield number, block_number, row


def _sampled_blocks(
    shards: Sequence[Shard], num_records: int | None, on_damage: Callable[[RecordError], None]
) -> Iterator[tuple[int, int, int | None]]:
    """Shard, block and how many records of it are wanted; None: all."""
    numbers: Sequence[int] = range(len(shards))
    blocks: list[tuple[int, int]] = []
    for number in numbers if num_records is None else spread(numbers, SAMPLED_SHARDS):
        try:
            blocks += [(number, block) for block in range(shards[number].num_blocks)]
        except RecordError as error:
            on_damage(error)
    if num_records is None:
        yield from ((*block, None) for block in blocks)
        return
    blocks = spread(blocks, SAMPLED_BLOCKS)
    for index, block in enumerate(blocks):
        yield *block, (index + 1) * num_records // len(blocks) - index * num_records // len(blocks)


def source_identity(shards: Sequence[Shard]) -> str:
    """SHA-256 over names and sizes of the shards: notices other files, without reading any."""
    return hashlib.sha256("\n".join(shard.identity for shard in shards).encode()).hexdigest()
