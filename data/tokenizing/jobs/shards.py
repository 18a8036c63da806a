"""Shards of codes: parquet files that say which audio tokenizer made them, of which job they are, and what was bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from audiollm.data.files.parquet import read_facts, write_parquet

COMPRESSION = "zstd"


@dataclass
class ShardFacts:
    """What a shard says of itself.

    Attributes:
        audio_tokenizer: fingerprint of what made the codes.
        job: hash of the job's settings.
        number: of the shard, from 0.
        num_shards: of the job.
        records: in it.
        clips: in it.
        seconds: of audio.
        tokens: codes.
        rejected: records that were left out: index, source and reason.
    """

    audio_tokenizer: str
    job: str
    number: int
    num_shards: int
    records: int = 0
    clips: int = 0
    seconds: float = 0.0
    tokens: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)


def shard_file(folder: Path, number: int, num_shards: int) -> Path:
    """Where a shard lies."""
    return folder / f"codes-{number:05d}-of-{num_shards:05d}.parquet"


def write_shard(lines: IO[bytes], path: Path, facts: ShardFacts, codebook_size: int) -> None:
    """Writes a shard; it appears whole or not at all.

    Args:
        lines: its records, as JSON lines.
        path: the file.
        facts: about it.
        codebook_size: codes are below this.

    Raises:
        ValueError: a column holds values of several types.
        OSError: it cannot be written.
    """
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of a killed process; we hold the shard
        leftover.unlink(missing_ok=True)
    try:
        write_parquet(lines, path, facts=asdict(facts), codebook_size=codebook_size, compression=COMPRESSION)
    except (TypeError, ValueError, OverflowError) as error:  # what pyarrow raises for a column of several types
        raise ValueError(
            f"{path} cannot hold these records ({error}): make the values of each key of one type, or write .jsonl"
        ) from error


def read_shard_facts(path: Path, job: str) -> ShardFacts:
    """What a shard says of itself.

    Args:
        path: the file.
        job: whose it has to be.

    Raises:
        ValueError: it is damaged, or of another job.
    """
    try:
        facts: Mapping[str, Any] = read_facts(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and run again to make it anew") from error
    if facts.get("job") != job:
        raise ValueError(f"{path} is not of this job: move it away, or choose another output")
    return ShardFacts(**facts)
