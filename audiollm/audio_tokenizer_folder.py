"""The folder of the audio tokenizer beside a processor: found wherever the processor came from, replaced whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers.modeling_utils import PreTrainedAudioTokenizerBase

from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.decoder.checkpoints.files import copy_decoder_beside

AUDIO_TOKENIZER_FOLDER = "audio_tokenizer"
_HUB_KEYS = ("cache_dir", "force_download", "local_files_only", "token", "revision")


@dataclass(frozen=True)
class Origin:
    """Where a processor was loaded from: a folder, or a Hub id with the arguments that reached it."""

    name: str
    hub: dict[str, Any]

    @classmethod
    def from_arguments(cls, path_or_hub_id: str | os.PathLike[str], arguments: Mapping[str, Any]) -> Origin:
        """Keeps what transformers' ``from_pretrained`` was called with, as far as it concerns the Hub."""
        hub = {key: arguments[key] for key in _HUB_KEYS if arguments.get(key) is not None}
        return cls(os.fspath(path_or_hub_id), hub)

    def subfolder(self, name: str) -> Path | None:
        """The folder inside it, downloaded if need be; None if there is none."""
        root = Path(self.name)
        if not root.is_dir():
            root = Path(snapshot_download(self.name, allow_patterns=[f"{name}/*"], **self.hub))
        folder = root / name
        return folder if folder.is_dir() else None


def copy_audio_tokenizer(source: Path, target: Path) -> None:
    """Copies the files: the object in memory may have been loaded without the layers that ids do not need.

    The waveform decoder comes along, also from beside a release's ``tokenizer/``.
    """
    if target.exists() and source.resolve() == target.resolve():
        return
    with _replaced(target) as new:
        shutil.copytree(source, new)
        copy_decoder_beside(source, new)


def save_audio_tokenizer(audio_tokenizer: AudioTokenizer, target: Path) -> None:
    """Writes an audio tokenizer that is in memory.

    Raises:
        ValueError: if it is of a kind that cannot be saved.
    """
    if not isinstance(audio_tokenizer, PreTrainedAudioTokenizerBase):
        raise ValueError(
            f"{type(audio_tokenizer).__name__} cannot be saved (it is no PreTrainedAudioTokenizerBase): "
            "give the processor codec_path= instead"
        )
    with _replaced(target) as new:
        audio_tokenizer.save_pretrained(new)


@contextlib.contextmanager
def _replaced(target: Path) -> Iterator[Path]:
    """Gives a place to write a folder, which then takes the place of ``target``; an error leaves that as it was."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as staging:
        new = Path(staging) / target.name
        yield new
        if target.exists():
            target.rename(Path(staging) / "old")
        new.rename(target)
