"""Records from wherever they lie: JSONL, parquet, a folder, a ``datasets`` data set, a Hub id or a list.

A `Manifest` is a sequence that reads one record when asked for it, so a 10 GB file costs an index of 8 bytes
per record. It knows where each record came from, for messages, and what the whole of it hashes to, for run records.

Reading order: ``base`` (what a manifest is) → ``lines``, ``tables``, ``joined`` (its kinds) → ``formats`` (what a file
is) → ``opening`` (a source → its manifest).
"""

from __future__ import annotations

from .base import Manifest, RecordError, checked_index
from .formats import JOB_FILE, MANIFEST_SUFFIXES, YAML_SUFFIXES, file_format, record_files, refuse_unfinished
from .joined import Joined
from .lines import NOT_JSON, JsonLines, parse_json_line
from .opening import NoSplitsError, may_be_hub_id, open_manifest, refuse_split
from .tables import Records, Rows, row_as_record

__all__ = [
    "JOB_FILE",
    "MANIFEST_SUFFIXES",
    "NOT_JSON",
    "YAML_SUFFIXES",
    "Joined",
    "JsonLines",
    "Manifest",
    "NoSplitsError",
    "RecordError",
    "Records",
    "Rows",
    "checked_index",
    "file_format",
    "may_be_hub_id",
    "open_manifest",
    "parse_json_line",
    "record_files",
    "refuse_split",
    "refuse_unfinished",
    "row_as_record",
]
