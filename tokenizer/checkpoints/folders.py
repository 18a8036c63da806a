"""Folders of checkpoints: found here or on the Hub, and their files put in place whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from audiollm.tokenizer.locks import entries_held

_STAGING_PREFIX = ".writing-"
_ABANDONED_SECONDS = 24 * 60 * 60
PAPERS = ("README.md", "LICENSE*", "NOTICE*", "ATTRIBUTION.md")
"""What belongs to any model, and is copied with it."""
HUB_OPTIONS = ("repo_type", "revision", "cache_dir", "token", "local_files_only", "force_download")


def find_folder(
    source: str | Path,
    *,
    needed: Sequence[str] | None = None,
    passed_over: Sequence[str] | None = None,
    kind: str = "checkpoint",
    **hub_options: Any,
) -> Path:
    """Finds a folder: ``source`` itself, or a repository on the Hub, which is downloaded.

    Args:
        source: a folder or Hub id.
        needed: patterns of the files to download, such as ``"decoder/*"``; None for all.
        passed_over: patterns of files to leave on the Hub all the same.
        kind: what it should be, for the error message.
        hub_options: ``repo_type``, ``revision``, ``cache_dir``, ``token``, ``local_files_only`` and ``force_download``,
            as in huggingface_hub.

    Raises:
        ValueError: if it is a file, or neither a folder here nor to be had from the Hub.
        TypeError: for an option that is not known.
    """
    unknown = sorted(hub_options.keys() - set(HUB_OPTIONS))
    if unknown:
        raise TypeError(f"unknown options: {', '.join(unknown)}; known are {', '.join(HUB_OPTIONS)}")
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ValueError(f"{source} is a file; pass the folder that holds it")
    if folder.is_absolute() or str(source).startswith((".", "~")) or len(folder.parts) > 2:
        raise ValueError(f"{source} is neither a folder here nor a {kind} on the Hub, whose names are owner/name")
    if needed is not None:
        hub_options["allow_patterns"] = list(needed)
    if passed_over is not None:
        hub_options["ignore_patterns"] = list(passed_over)
    try:
        return Path(snapshot_download(str(source), **hub_options))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())  # the Hub's, of several lines
        meant = " (did you mean mini?)" if get_close_matches(str(source), ["mini"]) else ""
        raise ValueError(f"{source} is neither a folder here nor a {kind} on the Hub{meant}: {reason}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a file of settings.

    Raises:
        ValueError: if it is not there, no JSON, or no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply for settings") from error
    except (ValueError, OSError) as error:  # no JSON, no UTF-8, a number of too many digits; not there
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a JSON {type(values).__name__}, not an object with the model's settings")
    return values


def copy_listed(source: Path, target: Path, patterns: Sequence[str]) -> None:
    """Copies the files of a folder that have one of these names, and nothing else: no folders, links or other files.

    A file on the Hub's cache is a link to its blob there, which is followed.

    Args:
        source: the folder.
        target: an existing folder.
        patterns: names, such as ``"model-*-of-*.safetensors"``.

    Raises:
        ValueError: if one of the files is a link that leads out of the folder.
    """
    home = source.resolve()
    blobs = next((parent.parent / "blobs" for parent in home.parents if parent.name == "snapshots"), home)
    for pattern in patterns:
        for path in sorted(source.glob(pattern)):
            real = path.resolve()
            if not real.is_relative_to(home) and not real.is_relative_to(blobs):
                raise ValueError(f"{path} is a link that leads out of {source}: put the file itself there")
            if real.is_file():
                shutil.copyfile(real, target / path.name)


@contextmanager
def replaced_files(folder: Path, *names: str, outdated: Sequence[str] = ()) -> Iterator[Path]:
    """Yields an empty folder to write files in, which take their places in ``folder`` when the block ends well.

    Each appears whole or not at all, those of ``names`` last and in that order: name last the file by which a reader
    knows that the folder is complete. Of two processes that write the same folder, the files of one stay. After an
    error ``folder`` holds what it held before.

    Args:
        folder: where the files belong; made if need be.
        names: of files that the block must write. It may write others, also in folders.
        outdated: patterns of files that go when the new ones are in place and none of them has that name, such as the
            parts of weights that are now one file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(folder)
    # Inside the folder, so that moving a file is a renaming within one file system, which no reader sees half done.
    with tempfile.TemporaryDirectory(prefix=_STAGING_PREFIX, dir=folder) as made:
        staging = Path(made)
        yield staging
        written = [str(path.relative_to(staging)) for path in staging.rglob("*") if path.is_file()]
        others = sorted((name for name in written if name not in names), key=_settings_last)
        with entries_held(folder):
            for name in (*others, *names):
                (folder / name).parent.mkdir(exist_ok=True)
                os.replace(staging / name, folder / name)
            for pattern in outdated:
                for path in folder.glob(pattern):
                    if path.name not in written:
                        path.unlink()


def _settings_last(name: str) -> tuple[str, bool, str]:
    path = Path(name)
    return str(path.parent), path.name == "config.json", path.name


def _clear_leftovers(folder: Path) -> None:
    """Removes what killed processes left in a folder: where nothing was written for a day, nobody writes any more."""
    for leftover in folder.glob(f"{_STAGING_PREFIX}*"):
        try:
            last_written = max(path.stat().st_mtime for path in (leftover, *leftover.iterdir()))
        except OSError:  # its process ends it just now
            continue
        if time.time() - last_written > _ABANDONED_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)
