"""What a file of records is, by its content; and whether a folder of codes is whole."""

from __future__ import annotations

import json
import logging
import os
from typing import Literal

from .base import RecordError

logger = logging.getLogger(__name__)

PARQUET_MAGIC = b"PAR1"
GZIP_MAGIC = b"\x1f\x8b"
COMPRESSED = {
    GZIP_MAGIC: ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"BZh": ("bzip2", "bunzip2"),
}  # first bytes of a file → what it is compressed with, and what undoes it
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
YAML_SUFFIXES = (".yaml", ".yml")
TAR_MAGIC, TAR_MAGIC_PLACE = b"ustar", 257
PARQUET_SUFFIX = ".parquet"
MANIFEST_SUFFIXES = (".jsonl", ".ndjson", PARQUET_SUFFIX)
UNREAD_SUFFIXES = (
    ".gz",
    ".zst",
    ".bz2",
    ".xz",
    ".tar",
    ".json",
    ".csv",
    ".tsv",
    ".arrow",
)  # of files that may hold records
JOB_FILE = os.path.join(".job", "job.json")  # in a folder of codes that several processes may fill
_HEAD_BYTES = 4096


def file_format(path: str, name: str | None = None) -> Literal["parquet", "json array", "json lines"]:
    """What a file of records is.

    Args:
        path: the file.
        name: what messages call it; its path if None.

    Raises:
        RecordError: it cannot be opened, is compressed, a tar file, UTF-16 or YAML, or is called parquet and is none.
    """
    name = name or path
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise RecordError(name, f"cannot be opened: {error.strerror}") from error
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    if path.endswith(PARQUET_SUFFIX):
        raise RecordError(name, "is no parquet file, or has lost its beginning; make the file again")
    for magic, (kind, program) in COMPRESSED.items():
        if head.startswith(magic):
            raise RecordError(
                name, f"is compressed with {kind}, of which no part can be read alone; run `{program}` on it"
            )
    if head[TAR_MAGIC_PLACE:].startswith(TAR_MAGIC):
        raise RecordError(name, "is a tar file; make codes of its recordings with `audiollm tokenize`, or unpack it")
    if head.startswith(UTF16_MARKS):
        raise RecordError(name, "is UTF-16 text; save it as UTF-8")
    if path.endswith(YAML_SUFFIXES):
        raise RecordError(name, "is YAML, and no file of records; mixtures are read by `audiollm train` as train_data")
    return "json array" if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[" else "json lines"


def record_files(folder: str) -> list[str]:
    """The files of records in a folder, by name; warns of others that look as if they held some."""
    names = sorted(os.listdir(folder))
    unread = [name for name in names if name.endswith(UNREAD_SUFFIXES) and not name.startswith(".")]
    found = [os.path.join(folder, name) for name in names if name.endswith(MANIFEST_SUFFIXES)]
    if found and unread:
        logger.warning(
            "%s: %d files are not read, such as %s: only %s are", folder, len(unread), unread[0],
            ", ".join(MANIFEST_SUFFIXES),
        )  # fmt: skip
    return found


def refuse_unfinished(folder: str) -> None:
    """Refuses a folder of codes while shards are missing.

    Raises:
        RecordError: its job is not finished, so that a part of the corpus would be left out in silence.
    """
    path = os.path.join(folder, JOB_FILE)
    if not os.path.isfile(path):
        return
    try:
        with open(path, encoding="utf-8") as file:
            num_shards = int(json.load(file)["num_shards"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RecordError(
            path, f"is damaged ({error}), so that nobody knows whether the codes beside it are whole: tokenize again"
        ) from error
    found = sum(name.endswith(f"-of-{num_shards:05d}{PARQUET_SUFFIX}") for name in os.listdir(folder))
    if found < num_shards:
        raise RecordError(
            folder,
            f"holds {found} of {num_shards} shards of codes: `audiollm tokenize` has not finished; run it again",
        )
