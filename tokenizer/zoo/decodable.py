"""Tokenizers of the zoo whose codes a waveform decoder of this package turns into sound, if they are given one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch

from audiollm.tokenizer.checkpoints.tensors import torch_dtype
from audiollm.tokenizer.decoder.attachable import WithWaveformDecoder
from audiollm.tokenizer.decoder.checkpoints.files import DECODER_FOLDER
from audiollm.tokenizer.opening import find_tokenizer_folder

from .codec import CodecTokenizer

Own = TypeVar("Own", bound="DecodableTokenizer")


class DecodableTokenizer(WithWaveformDecoder, CodecTokenizer):
    """A tokenizer of the zoo without a decoder of its own: it speaks through a `WaveformDecoder` made for its codes.

    That one lies in ``decoder/`` inside or beside the tokenizer's folder, or is given by `attach_decoder`.
    """

    @classmethod
    def from_pretrained(
        cls: type[Own],
        path_or_hub_id: str | Path,
        /,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        encoder_only: bool = False,
        fingerprint: str | None = None,
        decoder: bool | str | Path = True,
        **hub_options: Any,
    ) -> Own:
        """Loads a released checkpoint, or what `save_pretrained` wrote.

        Args:
            path_or_hub_id: a folder or Hub id.
            dtype: of the weights; float32 if None.
            device: where to put the model; the CPU if None.
            encoder_only: leave out what only decoding needs.
            fingerprint: of the tokenizer that is meant; another one is refused.
            decoder: the waveform decoder: True takes the one in ``decoder/``, inside this folder or beside it, if there
                is one; False none; a folder or Hub id another one. Its weights are read when it is first used.
            hub_options: as in huggingface_hub.

        Raises:
            ValueError: naming the file or the tensors that are missing or wrong, or both fingerprints; or if the
                decoder is refused or made for other codes.
        """
        model = super().from_pretrained(
            path_or_hub_id,
            dtype=dtype,
            device=device,
            encoder_only=encoder_only,
            fingerprint=fingerprint,
            **hub_options,
        )
        hub_options.pop("force_download", None)  # it has just been
        folder = find_tokenizer_folder(path_or_hub_id, hub_options)
        model.attach_asked(decoder, path_or_hub_id, folder, hub_options, dtype=torch_dtype(dtype))
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the tokenizer, and its waveform decoder into ``decoder/``; each file appears whole or not at all."""
        self.save_tokenizer(Path(folder))
        if self._attached_decoder is not None:
            self._attached_decoder.save(Path(folder) / DECODER_FOLDER)

    def save_tokenizer(self, folder: Path) -> None:
        """Writes the tokenizer alone."""
        CodecTokenizer.save_pretrained(self, folder)
