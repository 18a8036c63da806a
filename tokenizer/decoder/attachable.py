"""What a tokenizer is that can be given a waveform decoder: one beside its own folder, or any made for its codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor

from audiollm.tokenizer.base import AudioTokenizer, Codes
from audiollm.tokenizer.quantizer.codebook import check_codes

from .attached import AttachedDecoder
from .model import WaveformDecoder

OUTPUT_SAMPLE_RATE = 22050  # Hz, of the released waveform decoders

Own = TypeVar("Own", bound="WithWaveformDecoder")


class WithWaveformDecoder(AudioTokenizer):
    """A tokenizer of one codebook, a module, whose codes a `WaveformDecoder` turns into sound.

    The decoder is no part of the module: the tokenizer's own weights, their names and their hash stay what they are.
    """

    lacks_decoder: ClassVar[str] = (
        "this checkpoint has no waveform decoder, so its codes cannot be turned into sound; load one that has a "
        "decoder/ folder beside its tokenizer/ folder, or give it one with attach_decoder(folder)"
    )
    """What `decode` says where there is none."""
    _attached_decoder: AttachedDecoder | None = None

    if TYPE_CHECKING:  # of the module

        @property
        def device(self) -> torch.device: ...
        @property
        def dtype(self) -> torch.dtype: ...

    @property
    def output_sample_rate(self) -> int:
        return OUTPUT_SAMPLE_RATE if self._attached_decoder is None else self._attached_decoder.config.mel.sample_rate

    @property
    def can_decode(self) -> bool:
        return self._attached_decoder is not None

    @property
    def decoder(self) -> WaveformDecoder | None:
        """The waveform decoder, on this model's device; loaded when first asked for. None if there is none."""
        return None if self._attached_decoder is None else self._attached_decoder.get(self.device)

    def attach_decoder(self, decoder: WaveformDecoder | AttachedDecoder | str | Path | None) -> None:
        """Gives this tokenizer another waveform decoder, or none.

        Args:
            decoder: one in memory, the folder or Hub id of one, or None.

        Raises:
            ValueError: if it was made for other codes.
        """
        if isinstance(decoder, str | Path):
            decoder = WaveformDecoder.from_pretrained(decoder, dtype=self.dtype)
        attached = AttachedDecoder.from_decoder(decoder) if isinstance(decoder, WaveformDecoder) else decoder
        if attached is not None:
            flow = attached.config.flow
            if (flow.codebook_size, flow.frame_rate) != (self.codebook_size, self.frame_rate):
                raise ValueError(
                    f"the waveform decoder{f' in {attached.folder}' if attached.folder else ''} was made for "
                    f"{flow.codebook_size} codes at {flow.frame_rate} Hz, but this tokenizer has {self.codebook_size} "
                    f"at {self.frame_rate} Hz; use the decoder of this tokenizer, or load with decoder=False"
                )
        self._attached_decoder = attached

    def attach_asked(
        self,
        decoder: bool | str | Path,
        source: str | Path,
        folder: Path,
        hub_options: dict[str, Any],
        *,
        dtype: torch.dtype | None,
    ) -> None:
        """Gives a tokenizer that was just loaded the waveform decoder that was asked for.

        Args:
            decoder: True: the one in ``decoder/``, inside its folder or beside it, if there is one; False: none; a
                folder or Hub id: another one.
            source: what was asked for, a folder or Hub id.
            folder: in which the tokenizer was found.
            hub_options: as they were given.
            dtype: for the decoder.

        Raises:
            ValueError: if it is refused, or was made for other codes.
        """
        if decoder is True:
            self.attach_decoder(AttachedDecoder.beside(source, folder, hub_options, dtype=dtype))
        elif decoder is not False:
            self.attach_decoder(decoder)

    def decode(
        self,
        codes: Codes | Tensor | Sequence[Any],
        speaker: Tensor | None = None,
        prompt: Any = None,
        **options: Any,
    ) -> list[Tensor]:
        """Turns codes into waveforms at `output_sample_rate`; see `WaveformDecoder.decode`.

        Raises:
            ValueError: if this checkpoint has no decoder, or as that method.
        """
        if isinstance(codes, Codes | Tensor):  # bad codes are named also where there is nothing to decode them with
            check_codes(codes.codes if isinstance(codes, Codes) else codes, self.codebook_size)
        return self._require_decoder().decode(codes, speaker, prompt, **options)

    def decode_stream(
        self, codes: Iterable[Tensor], speaker: Tensor | None = None, prompt: Any = None, **options: Any
    ) -> Iterator[Tensor]:
        """Decodes codes as they come; see `WaveformDecoder.decode_stream`.

        Raises:
            ValueError: if this checkpoint has no decoder, or as that method.
        """
        return self._require_decoder().decode_stream(codes, speaker, prompt, **options)

    def _require_decoder(self) -> WaveformDecoder:
        decoder = self.decoder
        if decoder is None:
            raise ValueError(self.lacks_decoder)
        return decoder

    def _apply(self: Own, fn: Callable[..., Any], recurse: bool = True) -> Own:
        super()._apply(fn, recurse)  # type: ignore[misc]  # torch.nn.Module's
        if self._attached_decoder is not None:
            self._attached_decoder.move(self.device)
        return self
