"""Ids that tar files have in common, made different once all shards are there: nobody has seen all of them before."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.lock import FileInUseError, locked_file
from audiollm.data.files.parquet import PARQUET_ROWS
from audiollm.data.tokenizing.tar_shards import TarShards

from .shards import COMPRESSION, shard_file
from .work import Job

_LOCK_NAME = "ids"
logger = logging.getLogger(__name__)


def make_ids_differ(job: Job) -> int:
    """Gives a clip whose id an earlier tar file has too an id that begins with its own file's name, and says so.

    Records within a tar file, and of other corpora, have been rejected for that already. Nothing is done while shards
    are missing: it is for the last call of a job. A shard is replaced whole or not at all, and what has been renamed
    differs, so that a killed call is gone on with by the next.

    Returns:
        How many clips got another id.
    """
    paths = [shard_file(job.folder, number, job.num_shards) for number in range(job.num_shards)]
    if not isinstance(job.corpus, TarShards) or not all(path.exists() for path in paths):
        return 0
    try:
        with locked_file(job.state_folder / _LOCK_NAME):
            return _rename(paths, [part.title for part in job.corpus.parts], job.folder)
    except FileInUseError:
        logger.info("%s: another call looks for ids that come twice", job.folder)
        return 0


def _rename(paths: Sequence[Path], titles: Sequence[str], folder: Path) -> int:
    # Hashes of ids stand for them: 8 bytes each, where the ids of a large corpus are gigabytes.
    hashes = np.concatenate([np.array([hash(one) for one in _ids(path)], dtype=np.int64) for path in paths])
    all_hashes, counts = np.unique(hashes, return_counts=True)
    repeated = set(all_hashes[counts > 1].tolist())
    taken: set[str] = set()
    renamed: list[tuple[str, str]] = []

    def different(identifier: str, title: str) -> str:
        new = identifier
        while new in taken or (new != identifier and _holds(all_hashes, hash(new))):
            new = f"{title}/{new}"
        if new != identifier:
            renamed.append((identifier, new))
        if new != identifier or hash(identifier) in repeated:
            taken.add(new)
        return new

    if repeated:
        for path, title in zip(paths, titles, strict=True):
            num_before = len(renamed)
            ids = [different(one, title) for one in _ids(path)]
            if len(renamed) > num_before:
                _write_ids(path, ids)
    if renamed:
        old, new = renamed[0]
        logger.warning(
            "%s: %d clips have an id that another tar file has too; it now begins with that file, as in %s for %s",
            *(folder, len(renamed), new, old),
        )
    return len(renamed)


def _holds(values: np.ndarray, value: int) -> bool:
    """Whether sorted values hold one."""
    place = int(np.searchsorted(values, value))
    return place < len(values) and bool(values[place] == value)


def _ids(path: Path) -> list[str]:
    return [str(one) for one in pyarrow.parquet.read_table(path, columns=["id"]).column("id").to_pylist()]


def _write_ids(path: Path, ids: Sequence[str]) -> None:
    table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
    place = table.schema.get_field_index("id")
    table = table.set_column(place, "id", pyarrow.array(ids, pyarrow.string()))  # what the file says of itself stays
    with atomic_write(path, "wb") as file:
        pyarrow.parquet.write_table(
            table, file, compression=COMPRESSION, row_group_size=PARQUET_ROWS, write_page_checksum=True
        )
