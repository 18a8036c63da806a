"""Any source of records, opened as a manifest."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from audiollm.data.files.parquet import num_rows

from .base import Manifest, RecordError
from .formats import MANIFEST_SUFFIXES, file_format, record_files, refuse_unfinished
from .joined import Joined
from .lines import NOT_JSON, JsonLines
from .tables import Records, Rows


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
        NoSplitsError: a split of files, of which there are none.
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


class NoSplitsError(ValueError):
    """A split was asked for of what has none, such as a file."""


def refuse_split(split: str | None, source: str) -> None:
    """Refuses the name of a split where there are none.

    Raises:
        NoSplitsError: there is such a name.
    """
    if split is not None:
        raise NoSplitsError(f"split={split}: {source} is no data set with splits; name the files of the split")


def _open_path(path: str, folder: str | None, split: str | None, plain_paths: bool) -> Manifest:
    if os.path.isfile(path):
        refuse_split(split, path)
        return _open_file(path, folder, plain_paths)
    if os.path.isdir(path):
        return _open_folder(path, folder, split, plain_paths)
    files = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
    if files:
        refuse_split(split, path)
        for parent in {os.path.dirname(file) for file in files}:
            refuse_unfinished(parent)
        return _joined(files, path, folder, plain_paths)
    if not may_be_hub_id(path):
        raise RecordError(path, "no such file or folder")
    return _open_hub(path, folder, split)


def may_be_hub_id(name: str) -> bool:
    """Whether a name that is no file here may be a data set's on the Hub: ``owner/name``."""
    looks_like_file = name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith(MANIFEST_SUFFIXES)
    return not looks_like_file and not glob.has_magic(name) and all(name.split("/"))


def _open_file(path: str, folder: str | None, plain_paths: bool) -> Manifest:
    folder = folder or os.path.dirname(os.path.abspath(path))
    kind = file_format(path)
    if kind == "parquet":
        return _open_parquet(path, folder)
    return _open_json_array(path, folder) if kind == "json array" else JsonLines(path, folder, plain_paths)


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
    from pyarrow.dataset import ParquetFragmentScanOptions  # type: ignore[import-untyped]  # slow

    if num_rows(path) == 0:  # which `datasets` does not take
        return Records([], path, folder)
    checked = ParquetFragmentScanOptions(page_checksum_verification=True)
    dataset = _loaded(
        path, lambda: load_dataset("parquet", data_files=path, split="train", fragment_scan_options=checked)
    )
    return Rows(dataset, path, folder, file=os.path.abspath(path))


def _open_folder(path: str, folder: str | None, split: str | None, plain_paths: bool) -> Manifest:
    if any(os.path.exists(os.path.join(path, name)) for name in ("dataset_info.json", "dataset_dict.json")):
        from datasets import load_from_disk

        dataset = _loaded(path, lambda: load_from_disk(path))
        return _open_dataset(dataset, path, folder or os.path.abspath(path), split)
    files = record_files(path)
    if not files:
        raise RecordError(path, f"holds neither a saved data set nor {', '.join(MANIFEST_SUFFIXES)} files")
    refuse_unfinished(path)
    refuse_split(split, path)
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


def _open_hub(name: str, folder: str | None, split: str | None) -> Manifest:
    from datasets import load_dataset

    dataset = _loaded(name, lambda: load_dataset(name), "is no file or folder here, and ")
    return _open_dataset(dataset, name, folder, split)


def _loaded(name: str, load: Callable[[], Any], otherwise: str = "") -> Any:
    """Runs a loader of ``datasets``, whose errors do not always say what was being loaded, or what is wrong with it.

    Args:
        name: what messages call the source.
        load: the loader.
        otherwise: what else has been tried, in front of what is wrong.
    """
    from datasets.exceptions import DatasetsError

    try:
        return load()
    except (DatasetsError, OSError, ValueError) as error:
        raise RecordError(name, f"{otherwise}cannot be read with `datasets`: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """An error's first line, and that of what is behind it."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [(str(one).strip() or type(one).__name__).splitlines()[0] for one in (error, cause)]
    return ": ".join(dict.fromkeys(lines))


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
