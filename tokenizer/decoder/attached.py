"""The waveform decoder attached to a tokenizer: its sizes are read at once, its weights when it is first used."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from audiollm.tokenizer.checkpoints.folders import HUB_OPTIONS, find_folder
from audiollm.tokenizer.decoder.checkpoints.files import copy_decoder, decoder_beside, is_own, read_decoder_config
from audiollm.tokenizer.locks import CopyableLock

from .configuration import WaveformDecoderConfig
from .model import WaveformDecoder, convert_decoder


@dataclass(frozen=True)
class HubFolder:
    """A folder of a repository on the Hub, of which only the configuration is here yet."""

    repository: str
    folder: str
    options: dict[str, Any]

    def fetch(self) -> None:
        """Downloads all of it to where its configuration lies.

        Raises:
            ValueError: if the Hub does not give it.
        """
        find_folder(self.repository, needed=[f"{self.folder}/*"], kind="decoder", **self.options)


@dataclass
class AttachedDecoder:
    """Where a tokenizer's decoder comes from, and the decoder itself once it is loaded.

    Deliberately no module: the tokenizer's own weights, their names and their hash stay what they are without it.
    """

    config: WaveformDecoderConfig
    folder: Path | None = None
    hub: HubFolder | None = None
    dtype: torch.dtype | None = None
    _loaded: WaveformDecoder | None = field(default=None, repr=False)
    _loading: CopyableLock = field(default_factory=CopyableLock, repr=False, compare=False)

    @classmethod
    def from_decoder(cls, decoder: WaveformDecoder) -> AttachedDecoder:
        """Holds a decoder that is in memory."""
        return cls(decoder.config, _loaded=decoder)

    @classmethod
    def from_folder(
        cls, folder: Path, *, hub: HubFolder | None = None, dtype: torch.dtype | None = None
    ) -> AttachedDecoder:
        """Reads the configuration of a decoder's folder, and nothing else yet.

        Raises:
            ValueError: if the configuration is refused.
        """
        return cls(read_decoder_config(folder), folder, hub, dtype)

    @classmethod
    def beside(
        cls, source: str | Path, tokenizer: Path, hub_options: dict[str, Any], *, dtype: torch.dtype | None = None
    ) -> AttachedDecoder | None:
        """Finds the waveform decoder that came with a tokenizer.

        Args:
            source: what was asked for, a folder or Hub id.
            tokenizer: the folder in which the tokenizer was found.
            hub_options: as they were given.
            dtype: for the decoder.

        Returns:
            Its configuration and where its weights are; None if there is none.

        Raises:
            ValueError: if its configuration is refused.
        """
        folder = decoder_beside(tokenizer)
        if folder is None:
            return None
        hub = None
        snapshot = next((parent for parent in folder.parents if parent.parent.name == "snapshots"), None)
        if not Path(source).is_dir() and snapshot is not None:
            names = set(HUB_OPTIONS) - {"force_download"}  # the configuration beside the weights is fresh already
            options = {name: value for name, value in hub_options.items() if name in names}
            # The commit of the configuration, whatever the branch points at when the weights are needed.
            options["revision"] = snapshot.name
            hub = HubFolder(str(source), folder.relative_to(snapshot).as_posix(), options)
        return cls.from_folder(folder, hub=hub, dtype=dtype)

    def get(self, device: torch.device) -> WaveformDecoder:
        """Returns the decoder on a device; loads it the first time."""
        with self._loading:
            if self._loaded is None:
                assert self.folder is not None
                self._fetch()
                self._loaded = WaveformDecoder.from_pretrained(self.folder, dtype=self.dtype)
            # Only where it must: moving exchanges every weight, also for the same one, under threads that decode.
            return self._loaded if self._loaded.device == device else self._loaded.to(device)

    def move(self, device: torch.device) -> None:
        """Moves the decoder, if it is loaded."""
        if self._loaded is not None:
            self._loaded.to(device)

    def save(self, target: Path) -> None:
        """Writes the decoder in our own layout: what is in memory, or else what the folder holds, unchanged."""
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
