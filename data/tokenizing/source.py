"""Opens a corpus: records in any format, an audio file, a folder of them or a list."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiollm.data.audio.integrity import starts_like_audio
from audiollm.data.audio.sources import AUDIO_SUFFIXES
from audiollm.data.manifest import MANIFEST_SUFFIXES, Manifest, RecordError, Records, open_manifest, refuse_split

from .other_manifests import needs_lines, open_foreign
from .tar_shards import TarShards, tar_files

logger = logging.getLogger(__name__)


def open_corpus(
    source: Any,
    *,
    base_dir: str | os.PathLike[str] | None = None,
    split: str | None = None,
    format: str | None = None,
    lines: Path | None = None,
) -> Manifest:
    """Opens a corpus: records from anywhere, tar shards of WebDataset, manifests of other projects, or audio files.

    In a folder, a file counts as audio if its first bytes or its suffix say so; others (a README) are left alone. A
    link to what is not there counts by its suffix: what was to be in the corpus is an error, and not left out in
    silence.

    Args:
        source: records in any form that `open_manifest` reads; an audio file, a folder of them or a list; ``.tar``
            files, a folder or a glob pattern of them; cuts, or recordings and supervisions, of lhotse.
        base_dir: folder that relative paths start from; by default that of the file they are written in.
        split: which split of a data set that has several.
        format: what another project's manifest is, if its content does not say it; see `open_foreign`.
        lines: where the clips of another project's manifest are written; see `open_foreign`.

    Raises:
        RecordError: no such file, a folder without audio, an unreadable format.
        ValueError: a format that is not known, or that the source cannot have; a split of what has none.
    """
    manifest = _open_others(source, base_dir, format, lines)
    if manifest is None:
        manifest = open_manifest(source, base_dir=base_dir, split=split, plain_paths=True)
        _warn_of_recordings_beside(source, manifest)
        return manifest
    refuse_split(split, manifest.name)
    return manifest


def _open_others(
    source: Any, base_dir: str | os.PathLike[str] | None, format: str | None, lines: Path | None
) -> Manifest | None:
    """A corpus that is none of our records; None if it is."""
    if format is not None or (isinstance(source, (str, os.PathLike)) and needs_lines(os.fspath(source))):
        if not isinstance(source, (str, os.PathLike)):
            raise ValueError(f"format={format!r}: is of one file or folder, not of a {type(source).__name__}")
        return open_foreign(os.fspath(source), format, base_dir, lines)
    tars = tar_files(source)
    if tars is not None and not _holds_others(source):
        return TarShards(tars, os.fspath(source) if isinstance(source, (str, os.PathLike)) else "<list of tar files>")
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if os.path.isfile(path) and _is_audio_file(path):
            return AudioFiles([(os.path.basename(path), path)], path)
        if os.path.isdir(path) and not _is_record_folder(path):
            return open_audio_folder(path)
        if glob.has_magic(path) and not os.path.exists(path):
            return _matching_audio(path)
    elif isinstance(source, Sequence) and source and all(isinstance(item, (str, os.PathLike)) for item in source):
        folder = os.fspath(base_dir or "")
        return AudioFiles([(os.fspath(item), os.path.join(folder, item)) for item in source], "<list of files>")
    return None


def _matching_audio(pattern: str) -> AudioFiles | None:
    """The recordings that a glob pattern stands for; None if it stands for other files."""
    files = sorted(file for file in glob.glob(pattern, recursive=True) if os.path.isfile(file) or _is_lost(file))
    recordings = [file for file in files if _is_lost(file) or _is_audio_file(file)]
    if recordings and len(recordings) < len(files):
        other = min(set(files) - set(recordings))
        raise RecordError(pattern, f"stands for recordings ({recordings[0]}) and others ({other}): name one kind")
    return AudioFiles([(file, file) for file in recordings], pattern) if recordings else None


def _warn_of_recordings_beside(source: Any, manifest: Manifest) -> None:
    """Tells where more recordings lie in a folder than its records can name."""
    if not isinstance(source, (str, os.PathLike)) or not os.path.isdir(source):
        return
    recordings = [name for name in os.listdir(source) if name.lower().endswith(AUDIO_SUFFIXES)]
    if len(recordings) > len(manifest):
        logger.warning(
            "%s: holds %d recordings and %d records: recordings that no record names are left out; move the records "
            "elsewhere to read all of the folder's recordings",
            *(os.fspath(source), len(recordings), len(manifest)),
        )


class AudioFiles(Records):
    """Audio files as clip records ``{"id", "audio"}``; the id is the path as given, or relative to the folder.

    Args:
        files: id and path of each.
        name: what messages call them.
    """

    def __init__(self, files: Sequence[tuple[str, str]], name: str) -> None:
        super().__init__([{"id": identifier, "audio": path} for identifier, path in files], name)

    @property
    def fingerprint(self) -> str:
        """sha256 over ids and sizes: enough to notice another corpus, without reading all of it."""
        digest = hashlib.sha256()
        for record in self._records:
            size = os.path.getsize(record["audio"]) if os.path.isfile(record["audio"]) else -1
            digest.update(json.dumps([record["id"], size]).encode())
        return digest.hexdigest()


def _holds_others(source: Any) -> bool:
    """Whether a folder holds records or recordings beside its tar files: it is those that are read then."""
    if not isinstance(source, (str, os.PathLike)) or not os.path.isdir(source):
        return False
    beside = [name for name in os.listdir(source) if name.lower().endswith((*AUDIO_SUFFIXES, *MANIFEST_SUFFIXES))]
    if beside:
        path = os.fspath(source)
        logger.warning(
            "%s: tar files are left out, because %s lies beside them; %s/*.tar are they", path, min(beside), path
        )
    return bool(beside)


def _is_audio_file(path: str) -> bool:
    with open(path, "rb") as file:
        return starts_like_audio(file.read(12)) or path.lower().endswith(AUDIO_SUFFIXES)


def _is_lost(path: str) -> bool:
    """Whether a recording is a link to what is not there, as of a data set whose files have not been fetched."""
    return path.lower().endswith(AUDIO_SUFFIXES) and os.path.islink(path) and not os.path.exists(path)


def _is_record_folder(path: str) -> bool:
    names = os.listdir(path)
    return any(n in ("dataset_info.json", "dataset_dict.json") or n.endswith(MANIFEST_SUFFIXES) for n in names)


def open_audio_folder(path: str) -> AudioFiles:
    """Opens the audio files of a folder, and of those in it, in the order of their names.

    Raises:
        RecordError: it holds none.
    """
    files = []
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in names:
            file = os.path.join(folder, name)
            if not name.startswith(".") and (_is_lost(file) or (os.path.isfile(file) and _is_audio_file(file))):
                files.append((Path(os.path.relpath(file, path)).as_posix(), file))
    if not files:
        raise RecordError(path, "holds neither audio files nor records")
    return AudioFiles(sorted(files), path)
