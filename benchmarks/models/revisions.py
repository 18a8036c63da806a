"""Revisions of checkpoints under test: the commit on the Hub, or a hash of what lies in a folder."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from audiollm.data.files.hashing import file_sha256
from audiollm.sources.places import ModelSource, find_source

_HASHED_SUFFIXES = (".json", ".jinja", ".model", ".txt", ".safetensors", ".bin", ".pt")
_PROCESSOR_CONFIG = "processor_config.json"


def folder_revision(folder: str | os.PathLike[str]) -> str | None:
    """A hash of the checkpoint in a folder: of names and contents of its own files, sub-folders left out.

    Returns:
        ``sha256:`` and 64 digits; None if there is no such folder.
    """
    path = Path(folder)
    if not path.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.is_file() and file.suffix in _HASHED_SUFFIXES:
            digest.update(f"{file.name}\n{file_sha256(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def checkpoint_revision(source: str, config: object) -> str | None:
    """The hash of a folder, or the Hub commit that transformers noted in the config it loaded."""
    commit: str | None = getattr(config, "_commit_hash", None)
    return folder_revision(source) or commit


def audio_llm_revision(source: ModelSource, config: object) -> str | None:
    """As `checkpoint_revision`; where an adapter or a checkpoint comes on top of the model, one hash of both."""
    revision = checkpoint_revision(source.model, config)
    if source.adapter is not None:
        on_top = folder_revision(source.adapter)
    elif source.weights is not None:
        on_top = f"sha256:{file_sha256(source.weights)}"
    else:
        return revision
    return f"sha256:{hashlib.sha256(f'{revision}{on_top}'.encode()).hexdigest()}"


def is_audio_llm(source: str) -> bool:
    """Whether a folder or Hub id holds an Audio-LLM of ours, by its processor's class."""
    from transformers.utils import cached_file

    source = find_source(source).model
    if Path(source).is_dir():
        path: str | None = str(Path(source) / _PROCESSOR_CONFIG)
    else:
        path = cached_file(
            source,
            _PROCESSOR_CONFIG,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False,
        )
    if path is None or not Path(path).is_file():
        return False
    name = json.loads(Path(path).read_text(encoding="utf-8")).get("processor_class")
    return name == "AudioLLMProcessor"
