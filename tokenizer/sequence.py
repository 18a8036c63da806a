"""An audio tokenizer with several codebooks as one with a single codebook: what a language model is put on."""
# Shapes: B clips, K codebooks in use, T frames, S symbols of a row, N samples.

from __future__ import annotations

import hashlib
import inspect
import json
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import AudioTokenizer, Codes, require_one_rate
from .layout import CodeLayout, CodeOrder, FrameReader, SymbolWriter


def layout_of(
    audio_tokenizer: AudioTokenizer, codebooks: int | None = None, code_order: CodeOrder = "flat"
) -> CodeLayout | None:
    """How the codes of a tokenizer become one row; None where they are one already.

    Args:
        audio_tokenizer: of any kind that has codes.
        codebooks: use its first so many; None: all.
        code_order: ``flat`` or ``delay``; of one codebook there is nothing to order.

    Raises:
        ValueError: if it has no codes, or not so many codebooks.
    """
    sizes, name = audio_tokenizer.codebook_sizes, type(audio_tokenizer).__name__
    if not sizes or audio_tokenizer.latent_size is not None:
        raise ValueError(f"{name} has continuous latents and no codes: a language model needs codes")
    require_one_rate(audio_tokenizer, "a language model")
    if codebooks is not None and not 1 <= codebooks <= len(sizes):
        have = "one codebook" if len(sizes) == 1 else f"{len(sizes)} codebooks"
        raise ValueError(f"codebooks={codebooks}: {name} has {have}; use 1 to {len(sizes)}, or leave it out")
    layout = CodeLayout(sizes[:codebooks], code_order)
    return None if len(sizes) == 1 else layout


def as_one_row(
    audio_tokenizer: AudioTokenizer, codebooks: int | None = None, code_order: CodeOrder = "flat"
) -> AudioTokenizer:
    """The tokenizer with one row of symbols per clip; one that has a single codebook is returned as it is.

    Args:
        audio_tokenizer: as for `layout_of`, as the others are.
        codebooks: of those that it has.
        code_order: of the symbols.
    """
    layout = layout_of(audio_tokenizer, codebooks, code_order)
    return audio_tokenizer if layout is None else SequenceTokenizer(audio_tokenizer, layout)


class OneRowTokenizer(AudioTokenizer):
    """Presents the codes of a tokenizer as the symbols of a single codebook: what all such rows have in common.

    Args:
        inner: the tokenizer.
    """

    layout: Any
    """How its codes are one row: with ``size`` symbols, and ``to_dict``."""

    def __init__(self, inner: AudioTokenizer) -> None:
        self.inner = inner

    # Facts

    @property
    def kind(self) -> str:
        return self.inner.kind

    @property
    def sample_rate(self) -> int:
        return self.inner.sample_rate

    @property
    def output_sample_rate(self) -> int:
        return self.inner.output_sample_rate

    @property
    def num_codebooks(self) -> int:
        return 1

    @property
    def codebook_size(self) -> int:
        return int(self.layout.size)

    @property
    def is_causal(self) -> bool:
        return self.inner.is_causal

    @property
    def max_segment_seconds(self) -> float | None:
        return self.inner.max_segment_seconds

    @property
    def can_decode(self) -> bool:
        return self.inner.can_decode

    @property
    def why_no_sound(self) -> str:
        return self.inner.why_no_sound

    @property
    def licence_note(self) -> str:
        return self.inner.licence_note

    def fingerprint(self) -> str:
        stated = json.dumps([self.inner.fingerprint(), self.layout.to_dict()])
        return hashlib.sha256(stated.encode()).hexdigest()

    # Work

    @abstractmethod
    def row_of(self, codes: Any, index: int) -> Tensor:
        """The symbols of a clip, int64 ``[S]``, out of what the tokenizer inside gave for a batch."""

    @abstractmethod
    def codes_of(self, rows: Sequence[Tensor]) -> Any:
        """What the tokenizer inside decodes: the whole frames of rows that may break off; the inverse of `row_of`."""

    def encode(self, waveforms: Sequence[Tensor] | Tensor, sample_rate: int, *, batch_size: int = 16) -> Codes:
        """Turns waveforms into rows of symbols, ``[B, 1, S]``; arguments and errors as for the tokenizer inside.

        Args:
            waveforms: float in [-1, 1].
            sample_rate: of all of them, in Hz.
            batch_size: most segments computed at once, where the tokenizer takes such a limit.
        """
        takes_batch_size = "batch_size" in inspect.signature(self.inner.encode).parameters
        codes = self.inner.encode(waveforms, sample_rate, **({"batch_size": batch_size} if takes_batch_size else {}))
        rows = [self.row_of(codes, index)[None] for index in range(len(codes))]
        return Codes.from_list(rows, getattr(codes, "features", None), num_codebooks=1)

    def decode(
        self, codes: Codes | Tensor, speaker: Tensor | None = None, prompt: Any = None, **options: Any
    ) -> list[Tensor]:
        """Turns rows of symbols into waveforms; of a row that breaks off, as at a limit, the frames that are whole.

        Args:
            codes: of a batch, ``[B, 1, S]``; or of one clip, ``[1, S]`` or ``[S]``.
            speaker: as for the tokenizer inside, as the following.
            prompt: of its decoder.
            options: of its ``decode``.

        Returns:
            float32 ``[N_i]`` at `output_sample_rate`.

        Raises:
            ValueError: if it cannot decode, or a symbol cannot stand where it does.
        """
        self.require_decoder()
        rows = _rows_of(codes)
        return list(self.inner.decode(self.codes_of(rows), **_given(speaker, prompt), **options)) if rows else []

    def require_decoder(self) -> None:
        """Refuses to decode.

        Raises:
            ValueError: if it cannot.
        """
        if not self.can_decode:
            raise ValueError(f"cannot decode: {self.why_no_sound}")

    # As a model

    def to(self, *arguments: Any, **options: Any) -> OneRowTokenizer:
        """Moves the tokenizer inside."""
        inner: Any = self.inner
        if hasattr(inner, "to"):
            inner.to(*arguments, **options)
        return self

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Writes the files of the tokenizer inside; the layout is kept by whoever uses it, such as an Audio-LLM.

        Raises:
            ValueError: if the tokenizer inside is of a kind that cannot be saved.
        """
        inner: Any = self.inner
        if not hasattr(inner, "save_pretrained"):
            raise ValueError(f"{type(inner).__name__} cannot be saved, it has no save_pretrained()")
        inner.save_pretrained(folder, **options)


class SequenceTokenizer(OneRowTokenizer):
    """Presents the codes of several codebooks as symbols of one.

    Its frames are the symbols, K times as many; of a delayed row a few more, which are not in `frame_rate`.

    Args:
        inner: the tokenizer.
        layout: of the first codebooks of it.

    Raises:
        ValueError: if the tokenizer has other codebooks than the layout.
    """

    def __init__(self, inner: AudioTokenizer, layout: CodeLayout) -> None:
        require_one_rate(inner, "one row of codes")
        if inner.codebook_sizes[: layout.num_codebooks] != layout.codebook_sizes:
            raise ValueError(
                f"{type(inner).__name__} has codebooks of {list(inner.codebook_sizes)} codes, and the layout is one of "
                f"{layout}: use the audio tokenizer that it was made for"
            )
        super().__init__(inner)
        self.layout: CodeLayout = layout

    # Facts

    @property
    def frame_rate(self) -> float:
        return self.layout.symbols_per_second(self.inner.frame_rate)

    @property
    def bits_per_second(self) -> float:
        bits_per_frame = sum(math.log2(size) for size in self.layout.codebook_sizes)
        return self.inner.frame_rate * bits_per_frame  # pads tell nothing

    @property
    def can_encode_stream(self) -> bool:
        return self.inner.can_encode_stream

    @property
    def can_decode_stream(self) -> bool:
        return self.can_decode and self.inner.can_decode_stream

    def num_frames(self, num_samples: int, sample_rate: int) -> int:
        return self.layout.length(self.inner.num_frames(num_samples, sample_rate))

    @property
    def can_decode(self) -> bool:
        return self.inner.can_decode and (self._has_all_codebooks or self.inner.decodes_first_codebooks)

    @property
    def why_no_sound(self) -> str:
        if not self.inner.can_decode:
            return self.inner.why_no_sound
        return (
            f"the decoder of {type(self.inner).__name__} needs all {self.inner.num_codebooks} codebooks, and "
            f"{self.layout.num_codebooks} are in use"
        )

    @property
    def _has_all_codebooks(self) -> bool:
        return self.layout.num_codebooks == self.inner.num_codebooks

    # Work

    def row_of(self, codes: Codes, index: int) -> Tensor:
        return self.layout.to_symbols(codes[index][: self.layout.num_codebooks])

    def codes_of(self, rows: Sequence[Tensor]) -> Codes:
        clips = [self.layout.to_codes(row, is_cut=True) for row in rows]
        return Codes.from_list(clips, num_codebooks=self.layout.num_codebooks)

    def encode_stream(self, chunks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
        """Encodes consecutive pieces of one waveform, each ``[N_i]``; yields symbols, int64 ``[S]``."""
        writer = SymbolWriter(self.layout)
        for block in self.inner.encode_stream(chunks, sample_rate):
            codes = block if block.dim() == 2 else block[None]
            symbols = writer.take(codes[: self.layout.num_codebooks])
            if len(symbols):
                yield symbols
        rest = writer.end()
        if len(rest):
            yield rest

    def decode_stream(
        self, codes: Iterable[Tensor], speaker: Tensor | None = None, prompt: Any = None, **options: Any
    ) -> Iterator[Tensor]:
        """Decodes consecutive symbols of one clip, int64 ``[S_i]`` each, frame by frame; yields samples ``[N]``.

        Args:
            codes: pieces of the row, of any size.
            speaker: as for `decode`, as the following.
            prompt: of the decoder.
            options: of the ``decode_stream`` of the tokenizer inside.
        """
        self.require_decoder()
        yield from self.inner.decode_stream(self._frames(codes), **_given(speaker, prompt), **options)

    def _frames(self, symbols: Iterable[Tensor]) -> Iterator[Tensor]:
        reader = FrameReader(self.layout)
        for piece in symbols:
            codes = reader.take(piece.reshape(-1))
            if codes.shape[1]:
                yield codes[0] if self.inner.num_codebooks == 1 else codes


def _rows_of(codes: Codes | Tensor | Sequence[Any]) -> list[Tensor]:
    if isinstance(codes, Codes):
        return [codes[index][0] for index in range(len(codes))]
    if isinstance(codes, Tensor):
        return list(codes[:, 0]) if codes.dim() == 3 else [codes.reshape(-1)]
    return [torch.as_tensor(row).reshape(-1) for row in codes]


def _given(speaker: Tensor | None, prompt: Any) -> dict[str, Any]:
    """Not every decoder knows both, so what is not given is left out."""
    return {name: one for name, one in (("speaker", speaker), ("prompt", prompt)) if one is not None}
