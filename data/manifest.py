"""Records from wherever they lie: JSONL, parquet, a folder, a ``datasets`` data set, a Hub id or a list.

A `Manifest` is a sequence that reads one record when asked for it, so a 10 GB file costs an index of 8 bytes
per record. It knows where each record came from, for messages, and what the whole of it hashes to, for run records.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from .files.hashing import file_sha256
from .files.parquet import num_rows, read_facts

PARQUET_MAGIC = b"PAR1"
GZIP_MAGIC = b"\x1f\x8b"
MANIFEST_SUFFIXES = (".jsonl", ".ndjson", ".parquet")
NOT_JSON = "is not JSON"
MAX_DEPTH = 100  # levels of brackets in a record
FINGERPRINT_ROWS = 1000  # rows hashed at a time
JOB_FILE = os.path.join(".job", "job.json")  # in a folder of codes that several processes may fill


class RecordError(ValueError):
    """Something wrong with a record or its file; the message names file and line.

    Args:
        where: file and line, or file alone.
        reason: what is wrong.
    """

    def __init__(self, where: str, reason: str = "") -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.reason) if part)


class Manifest(Sequence[Any]):
    """A read-only sequence of records. Picklable, and safe to share with forked data-loading processes."""

    name: str
    """What messages call the whole of it."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Returns the place of a record for messages, such as ``train.jsonl:7``."""

    @abstractmethod
    def base_dir(self, index: int) -> str | None:
        """Returns the absolute folder that a record's relative paths start from; ``None``: the working folder."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of the content, in hexadecimal digits."""

    @abstractmethod
    def _record(self, index: int) -> Any:
        """Reads record ``index`` in [0, len)."""

    def without_sound(self) -> Manifest:
        """Returns the same records without columns that hold files, where leaving them out saves reading them."""
        return self

    def code_makers(self) -> Iterator[tuple[str, str]]:
        """Yields the files that say which audio tokenizer made the codes in them, and its fingerprint."""
        return iter(())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._record(i) for i in range(len(self))[index]]
        return self._record(checked_index(self, index))


def checked_index(sequence: Sequence[Any], index: int) -> int:
    """Returns ``index`` counted from the start; raises IndexError outside the sequence."""
    length = len(sequence)
    if not -length <= index < length:
        raise IndexError(f"record {index} of {length}")
    return index % length


class JsonLines(Manifest):
    """One JSON value per line, UTF-8; blank lines are skipped. Only the lines' positions are held in memory.

    Args:
        path: the file.
        base_dir: folder that relative paths start from; the file's own by default.
        plain_paths: a line that is not JSON (no ``{``, ``[`` or ``"`` in front) stands for itself, as a path.
    """

    def __init__(self, path: str | os.PathLike[str], base_dir: str | None = None, plain_paths: bool = False) -> None:
        self.name = os.fspath(path)
        self._path = os.path.abspath(path)
        self._base_dir = base_dir or os.path.dirname(self._path)
        self._plain_paths = plain_paths
        self._offsets = array("q")
        self._blank_lines = array("q")  # numbers of records that come before each blank line
        digest = hashlib.sha256()
        position = 0
        # Bytes on purpose: offsets count them, and lines of text also end at characters inside JSON texts (U+2028).
        with open(self._path, "rb") as file:
            for line in file:
                digest.update(line)
                if line.strip():
                    self._offsets.append(position)
                else:
                    self._blank_lines.append(len(self._offsets))
                position += len(line)
        self._fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._offsets)

    def where(self, index: int) -> str:
        return f"{self.name}:{index + 1 + bisect_right(self._blank_lines, index)}"

    def base_dir(self, index: int) -> str | None:
        return self._base_dir

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def _record(self, index: int) -> Any:
        return parse_json_line(self._line(index), self.where(index), self._plain_paths)

    def _line(self, index: int) -> bytes:
        # Opened for each record: a descriptor shared by forked workers would share its position too.
        with open(self._path, "rb") as file:
            file.seek(self._offsets[index])
            return file.readline()


def parse_json_line(line: bytes, where: str, plain_paths: bool = False) -> Any:
    """What a line of a JSON Lines file holds.

    Args:
        line: UTF-8.
        where: file and line, for messages.
        plain_paths: as for `JsonLines`.

    Raises:
        RecordError: it is not JSON, nested too deeply, or not UTF-8.
    """
    try:
        text = line.decode("utf-8-sig").strip()  # -sig: editors of Windows put a byte order mark before UTF-8
        if "\0" in text:
            raise RecordError(where, "holds NUL bytes, as half-written files do; remove the line")
        if plain_paths and not text.startswith(("{", "[", '"')):
            return text
        return _of_bounded_depth(json.loads(text), text)
    except RecordError:
        raise
    except UnicodeDecodeError as error:
        raise RecordError(where, f"is not UTF-8 text (byte {error.start}: {error.reason})") from error
    except json.JSONDecodeError as error:
        raise RecordError(where, f"{NOT_JSON}: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise RecordError(where, "is not a record: brackets are nested too deeply") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise RecordError(where, f"is not a record: {error}") from error


def _of_bounded_depth(value: Any, text: str) -> Any:
    """Returns the value of a JSON text if programs can walk through it that call themselves for every level.

    Raises:
        RecursionError: it is nested deeper than any record.
    """
    if text.count("[") + text.count("{") > MAX_DEPTH:
        level = [value]
        for _ in range(MAX_DEPTH):
            inner = (item.values() if isinstance(item, dict) else item for item in level)
            level = [item for items in inner if not isinstance(items, str) for item in _containers(items)]
            if not level:
                return value
        raise RecursionError
    return value


def _containers(items: Any) -> list[Any]:
    return [item for item in items if isinstance(item, (dict, list))] if isinstance(items, Iterable) else []


class Records(Manifest):
    """Records that are in memory already.

    Args:
        records: the records.
        name: what messages call them.
        base_dir: folder that relative paths start from.
    """

    def __init__(self, records: Sequence[Any], name: str = "<list>", base_dir: str | None = None) -> None:
        self.name = name
        self._records = records
        self._base_dir = base_dir

    def __len__(self) -> int:
        return len(self._records)

    def where(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def base_dir(self, index: int) -> str | None:
        return self._base_dir

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for record in self._records:
            digest.update(json.dumps(record, sort_keys=True, default=_hashable).encode() + b"\n")
        return digest.hexdigest()

    def _record(self, index: int) -> Any:
        return self._records[index]


def _hashable(value: Any) -> Any:
    """Turns what JSON cannot write into something that stands for its content."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    for method in ("to_dict", "tolist", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"a record holds a {type(value).__name__}, which has no fingerprint; use plain values")


class Rows(Manifest):
    """Rows of a ``datasets.Dataset``, as stored: audio columns stay ``{"path", "bytes"}`` and are not decoded.

    Args:
        dataset: the data set.
        name: what messages call it.
        base_dir: folder that relative paths start from.
        file: the file whose bytes are the content, if there is one.
    """

    def __init__(self, dataset: Any, name: str, base_dir: str | None = None, file: str | None = None) -> None:
        self.name = name
        self._rows = dataset.with_format("arrow")
        self._base_dir = base_dir
        self._file = file

    def __len__(self) -> int:
        return len(self._rows)

    def where(self, index: int) -> str:
        return f"{self.name}:row {index}"

    def base_dir(self, index: int) -> str | None:
        return self._base_dir

    @cached_property
    def fingerprint(self) -> str:
        if self._file is not None:
            return file_sha256(self._file)
        digest = hashlib.sha256()
        for table in self._rows.iter(batch_size=FINGERPRINT_ROWS):
            digest.update(repr(table.schema.remove_metadata()).encode())
            # How rows lie in chunks, and what metadata say of them, is not their content.
            for batch in table.combine_chunks().to_batches():
                digest.update(batch.serialize())
        return digest.hexdigest()

    def without_sound(self) -> Manifest:
        schema = self._rows.features.arrow_schema
        names = [field.name for field in schema if "binary" not in str(field.type)]
        return Rows(self._rows.select_columns(names), self.name, self._base_dir, self._file) if names else self

    def code_makers(self) -> Iterator[tuple[str, str]]:
        made_by = None if self._file is None else read_facts(self._file).get("audio_tokenizer")
        if made_by is not None:
            yield self.name, made_by

    def _record(self, index: int) -> Any:
        return self._rows[index : index + 1].to_pylist()[0]


class Joined(Manifest):
    """Several manifests, one after the other.

    Args:
        parts: the manifests.
        name: what messages call the whole.
    """

    def __init__(self, parts: Sequence[Manifest], name: str) -> None:
        self.name = name
        self.parts = parts

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _locate(self, index: int) -> tuple[Manifest, int]:
        number = bisect_right(self._ends, index)
        return self.parts[number], index - (self._ends[number - 1] if number else 0)

    def where(self, index: int) -> str:
        part, inner_index = self._locate(index)
        return part.where(inner_index)

    def base_dir(self, index: int) -> str | None:
        part, inner_index = self._locate(index)
        return part.base_dir(inner_index)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(part.fingerprint for part in self.parts).encode()).hexdigest()

    def without_sound(self) -> Manifest:
        return Joined([part.without_sound() for part in self.parts], self.name)

    def code_makers(self) -> Iterator[tuple[str, str]]:
        for part in self.parts:
            yield from part.code_makers()

    def _record(self, index: int) -> Any:
        part, inner_index = self._locate(index)
        return part[inner_index]


def open_manifest(
    source: Any,
    *,
    base_dir: str | os.PathLike[str] | None = None,
    split: str | None = None,
    plain_paths: bool = False,
) -> Manifest:
    """Opens any source of records.

    Args:
        source: a file (JSONL, a JSON array or parquet, told apart by content), a glob pattern or a folder of such
            files, a folder written by ``datasets``' ``save_to_disk``, a Hub id (``owner/name``), a
            ``datasets.Dataset``, a sequence of records, or a `Manifest` (returned as it is).
        base_dir: folder that relative paths start from; by default the folder of the file they are written in.
        split: which split of a data set that has several; "train" if it has one of that name.
        plain_paths: as for `JsonLines`.

    Raises:
        RecordError: no such file, a format that is not read, a split that does not exist.
    """
    if isinstance(source, Manifest):
        return source
    folder = None if base_dir is None else os.path.abspath(base_dir)
    if isinstance(source, (str, os.PathLike)):
        return _open_path(os.fspath(source), folder, split, plain_paths)
    if hasattr(source, "with_format"):  # datasets.Dataset, DatasetDict and their streamed kin
        return _open_dataset(source, "<dataset>", folder, split)
    if isinstance(source, Sequence) and not isinstance(source, (bytes, bytearray)):
        return Records(source, base_dir=folder)
    raise TypeError(
        f"records come from a path, a Hub id, a datasets.Dataset or a sequence, not from {type(source).__name__}"
    )


def _open_path(path: str, folder: str | None, split: str | None, plain_paths: bool) -> Manifest:
    if os.path.isfile(path):
        return _open_file(path, folder, plain_paths)
    if os.path.isdir(path):
        return _open_folder(path, folder, split, plain_paths)
    files = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
    if files:
        for parent in {os.path.dirname(file) for file in files}:
            refuse_unfinished(parent)
        return _joined(files, path, folder, plain_paths)
    looks_like_file = path.count("/") != 1 or path.startswith((".", "/", "~")) or path.endswith(MANIFEST_SUFFIXES)
    if looks_like_file or not all(path.split("/")):
        raise RecordError(path, "no such file or folder")
    return _open_hub(path, folder, split)


def _open_file(path: str, folder: str | None, plain_paths: bool) -> Manifest:
    folder = folder or os.path.dirname(os.path.abspath(path))
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise RecordError(path, f"cannot be opened: {error.strerror}") from error
    if head.startswith(PARQUET_MAGIC):
        return _open_parquet(path, folder)
    if head.startswith(GZIP_MAGIC):
        raise RecordError(path, "is compressed with gzip, which allows no access by line; run `gunzip` on it")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        return _open_json_array(path, folder)
    return JsonLines(path, folder, plain_paths)


def _open_json_array(path: str, folder: str) -> Manifest:
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}", f"{NOT_JSON}: {error.msg} at column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise RecordError(path, f"is not UTF-8 text (byte {error.start}: {error.reason})") from error
    except RecursionError as error:
        raise RecordError(path, "holds brackets that are nested too deeply") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise RecordError(path, f"cannot be read: {error}") from error
    return Records(records, path, folder)


def _open_parquet(path: str, folder: str) -> Manifest:
    from datasets import load_dataset

    if num_rows(path) == 0:  # which `datasets` does not take
        return Records([], path, folder)
    dataset = _loaded(path, lambda: load_dataset("parquet", data_files=path, split="train"))
    return Rows(dataset, path, folder, file=os.path.abspath(path))


def _open_folder(path: str, folder: str | None, split: str | None, plain_paths: bool) -> Manifest:
    if any(os.path.exists(os.path.join(path, name)) for name in ("dataset_info.json", "dataset_dict.json")):
        from datasets import load_from_disk

        dataset = _loaded(path, lambda: load_from_disk(path))
        return _open_dataset(dataset, path, folder or os.path.abspath(path), split)
    files = sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(MANIFEST_SUFFIXES))
    if not files:
        raise RecordError(path, f"holds neither a saved data set nor {', '.join(MANIFEST_SUFFIXES)} files")
    refuse_unfinished(path)
    return _joined(files, path, folder, plain_paths)


def _joined(files: Sequence[str], name: str, folder: str | None, plain_paths: bool) -> Manifest:
    """Files as one, whose codes mean the same in all of them.

    Raises:
        RecordError: two of them hold codes of different audio tokenizers.
    """
    joined = Joined([_open_file(file, folder, plain_paths) for file in files], name)
    first: tuple[str, str] | None = None
    for file, made_by in joined.code_makers():
        first = first or (file, made_by)
        if made_by != first[1]:
            raise RecordError(
                name,
                f"mixes codes of two audio tokenizers, {first[1]} in {first[0]} and {made_by} in {file}: keep those of "
                "one, or tokenize again",
            )
    return joined


def refuse_unfinished(folder: str) -> None:
    """Refuses a folder of codes while shards are missing.

    Raises:
        RecordError: its job is not finished, so that a part of the corpus would be left out in silence.
    """
    path = os.path.join(folder, JOB_FILE)
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            num_shards = json.load(file)["num_shards"]
        found = sum(name.endswith(f"-of-{num_shards:05d}.parquet") for name in os.listdir(folder))
        if found < num_shards:
            raise RecordError(
                folder,
                f"holds {found} of {num_shards} shards of codes: `audiollm tokenize` has not finished; run it again",
            )


def _open_hub(name: str, folder: str | None, split: str | None) -> Manifest:
    from datasets import load_dataset

    dataset = _loaded(name, lambda: load_dataset(name))
    return _open_dataset(dataset, name, folder, split)


def _loaded(name: str, load: Callable[[], Any]) -> Any:
    """Runs a loader of ``datasets``, whose errors do not always say what was being loaded."""
    from datasets.exceptions import DatasetsError

    try:
        return load()
    except (DatasetsError, OSError, ValueError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RecordError(name, f"cannot be read with `datasets`: {first_line}") from error


def _open_dataset(dataset: Any, name: str, folder: str | None, split: str | None) -> Manifest:
    if hasattr(dataset, "keys"):
        names = list(dataset.keys())
        chosen = split or ("train" if "train" in names else names[0] if len(names) == 1 else None)
        if chosen not in names:
            asked = f"has no split {split!r}" if split else "has several splits"
            raise RecordError(name, f"{asked}; choose split= one of {', '.join(names)}")
        dataset = dataset[chosen]
        name = f"{name}[{chosen}]"
    elif split is not None and dataset.split is not None and str(dataset.split) != split:
        raise RecordError(name, f"is the split {str(dataset.split)!r}, not {split!r}")
    if not hasattr(dataset, "__len__"):
        raise RecordError(name, "is streamed (an IterableDataset); load it with streaming=False for access by index")
    return Rows(dataset, name, folder)
