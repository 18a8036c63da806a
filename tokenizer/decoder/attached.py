"""The waveform decoder beside a tokenizer: its sizes are read at once, its weights when it is first used."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import snapshot_download

from .configuration import WaveformDecoderConfig

if TYPE_CHECKING:
    from .model import WaveformDecoder

TOKENIZER_FOLDER = "tokenizer"


@dataclass(frozen=True)
class HubFolder:
    """A folder of a repository on the Hub, of which only the configuration is here yet."""

    repository: str
    folder: str
    options: dict[str, Any]

    def fetch(self) -> None:
        """Downloads all of it to where its configuration lies."""
        snapshot_download(self.repository, allow_patterns=[f"{self.folder}/*"], **self.options)


@dataclass
class DecoderSlot:
    """Where a tokenizer's decoder comes from, and the decoder itself once it is loaded.

    Deliberately no module: the tokenizer's own weights, their names and their hash stay what they are without it.
    """

    config: WaveformDecoderConfig
    folder: Path | None = None
    hub: HubFolder | None = None
    dtype: torch.dtype | None = None
    _loaded: WaveformDecoder | None = field(default=None, repr=False)

    @classmethod
    def from_decoder(cls, decoder: WaveformDecoder) -> DecoderSlot:
        """Holds a decoder that is in memory."""
        return cls(decoder.config, _loaded=decoder)

    @classmethod
    def from_folder(
        cls, folder: Path, *, hub: HubFolder | None = None, dtype: torch.dtype | None = None
    ) -> DecoderSlot:
        """Reads the configuration of a decoder's folder, and nothing else yet.

        Raises:
            ValueError: if the configuration is refused.
        """
        from audiollm.tokenizer.decoder.checkpoints.files import read_decoder_config

        return cls(read_decoder_config(folder), folder, hub, dtype)

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._loaded is not None

    def get(self, device: torch.device) -> WaveformDecoder:
        """Returns the decoder on a device; loads it the first time."""
        if self._loaded is None:
            from .model import WaveformDecoder

            assert self.folder is not None
            self._fetch()
            self._loaded = WaveformDecoder.from_pretrained(self.folder, dtype=self.dtype)
        return self._loaded.to(device)

    def move(self, device: torch.device) -> None:
        """Moves the decoder, if it is loaded."""
        if self._loaded is not None:
            self._loaded.to(device)

    def save(self, target: Path) -> None:
        """Writes the decoder in our own layout: what is in memory, or else what the folder holds, unchanged."""
        from audiollm.tokenizer.decoder.checkpoints.files import convert_decoder, copy_decoder, is_own

        if self._loaded is not None:
            self._loaded.save_pretrained(target)
            return
        assert self.folder is not None
        self._fetch()
        if is_own(self.folder):
            copy_decoder(self.folder, target)
        else:
            convert_decoder(self.folder, target)

    def _fetch(self) -> None:
        if self.hub is not None:
            self.hub.fetch()
            self.hub = None


def decoder_beside(tokenizer: Path) -> Path | None:
    """Finds the decoder that belongs to a tokenizer's folder: in ``decoder/`` inside it, or beside ``tokenizer/``."""
    from audiollm.tokenizer.decoder.checkpoints.files import DECODER_FOLDER, holds_decoder

    candidates = [tokenizer / DECODER_FOLDER]
    if tokenizer.name == TOKENIZER_FOLDER:
        candidates.append(tokenizer.parent / DECODER_FOLDER)
    return next((folder for folder in candidates if holds_decoder(folder)), None)


def copy_decoder_beside(source: Path, target: Path) -> None:
    """Copies the decoder that lies beside a tokenizer's folder into a copy of that folder."""
    from audiollm.tokenizer.decoder.checkpoints.files import DECODER_FOLDER

    beside = decoder_beside(source)
    if beside is not None and decoder_beside(target) is None and (target / "config.json").is_file():
        shutil.copytree(beside, target / DECODER_FOLDER)
