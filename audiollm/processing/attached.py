"""The audio tokenizer of a processor: given, or found beside it and loaded when it is first needed."""
# Shapes: T codes of one clip, N samples.

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiollm.data.audio.reading import Mono
from audiollm.data.conversation.types import AudioPart
from audiollm.folders import Origin, copy_audio_tokenizer, save_audio_tokenizer
from audiollm.tokenizer.base import AudioTokenizer, Codes
from audiollm.tokenizer.grouped import GroupedLayout, GroupedSequenceTokenizer
from audiollm.tokenizer.layout import CodeLayout
from audiollm.tokenizer.locks import CopyableLock
from audiollm.tokenizer.opening import keeps_decoder
from audiollm.tokenizer.sequence import OneRowTokenizer, SequenceTokenizer

logger = logging.getLogger(__name__)


class ForeignCodesError(ValueError):
    """Codes of another audio tokenizer than that whose codes the LLM knows."""


class AttachedAudioTokenizer:
    """Where a processor's audio tokenizer comes from, and the audio tokenizer itself once it is loaded.

    Args:
        codebook_size: V of the codes that the LLM knows.
        codec_path: where it is: a folder inside the processor's own, another folder, or a Hub id; None: nowhere.
        fingerprint: of the audio tokenizer whose codes the LLM knows, if that is known.
        layout: how those of several codebooks, or of several rates, are one row; then `get` gives a `OneRowTokenizer`.
    """

    def __init__(
        self,
        codebook_size: int,
        codec_path: str | None = None,
        fingerprint: str | None = None,
        layout: CodeLayout | GroupedLayout | None = None,
    ) -> None:
        self.codebook_size = codebook_size
        self.layout = layout
        self.codec_path = codec_path
        self.origin: Origin | None = None
        """What the processor was loaded from; ``codec_path`` is looked for there first."""
        self.mono: Mono = "first"
        self.accepted_codes: frozenset[str] = frozenset()
        self._fingerprint = fingerprint
        self._loaded: AudioTokenizer | None = None
        self._device: torch.device | str | None = None
        self._loading = CopyableLock()  # by the first thread that needs it

    # The audio tokenizer itself

    @property
    def exists(self) -> bool:
        """Whether there is one, loaded or not."""
        return self.is_loaded or self.codec_path is not None

    @property
    def is_loaded(self) -> bool:
        """Whether it is in memory."""
        return self._loaded is not None

    def get(self) -> AudioTokenizer:
        """Returns it; loads it the first time."""
        with self._loading:
            return self.load() if self._loaded is None else self._loaded

    def look(self) -> AudioTokenizer | None:
        """The audio tokenizer for what it is, and not to work with: one that is not loaded is not kept, and on the CPU.

        Raises:
            ValueError: if it is another one than that whose codes the LLM knows.
        """
        if not self.exists:
            return None
        return self._opened(self._source(), "cpu", None, True) if self._loaded is None else self._loaded

    def set(self, audio_tokenizer: AudioTokenizer) -> None:
        """Puts another one in its place; warns if the LLM does not know its codes.

        Raises:
            ValueError: if it has another number of codes.
        """
        audio_tokenizer = self._in_one_row(audio_tokenizer)
        if self._fingerprint is not None:
            fingerprint = audio_tokenizer.fingerprint()
            if fingerprint not in (self._fingerprint, *self.accepted_codes):
                logger.warning(
                    "the LLM knows the codes of another audio tokenizer (fingerprint %s) than the one given now (%s): "
                    "it takes them for other sounds until it is trained on them",
                    self._fingerprint,
                    fingerprint,
                )
            self._fingerprint = fingerprint
        self._loaded = audio_tokenizer
        self.codec_path = None  # the one that is given counts, and is saved, instead of the one that was found

    def load(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        encoder_only: bool = True,
    ) -> AudioTokenizer:
        """Loads it, replacing one that is loaded; arguments as for `HasAudioTokenizer.load_audio_tokenizer`."""
        if self.codec_path is None:
            raise ValueError(
                "this processor has no audio tokenizer, so it takes codes but no recordings: pass audio_tokenizer= or "
                "codec_path=, or load it from an Audio-LLM folder with audio_tokenizer/ inside"
            )
        if device is not None:
            self._device = device
        self._loaded = self._opened(self._source(), self._device, dtype, encoder_only)
        return self._loaded

    def _opened(
        self, source: str | Path, device: torch.device | str | None, dtype: torch.dtype | None, encoder_only: bool
    ) -> AudioTokenizer:
        loaded = self._in_one_row(
            AudioTokenizer.from_pretrained(
                source,
                encoder_only=encoder_only and keeps_decoder(source),
                dtype=dtype,
                device=device,
                # That of a row is known once its layout is.
                fingerprint=self._fingerprint if self.layout is None else None,
            )
        )
        if self.layout is not None and self._fingerprint not in (None, loaded.fingerprint()):
            raise ValueError(
                f"{source} is another audio tokenizer (fingerprint {loaded.fingerprint()[:12]}…, {self.layout}) than "
                f"the one whose codes the LLM knows ({str(self._fingerprint)[:12]}…): put that one back"
            )
        return loaded

    @property
    def device(self) -> torch.device | str | None:
        """Where it runs, loaded or not yet; None: the CPU, or where the one given was."""
        return self._device

    @device.setter
    def device(self, device: torch.device | str | None) -> None:
        self._device = device
        if isinstance(self._loaded, (torch.nn.Module, OneRowTokenizer)):
            self._loaded.to(device if device is not None else "cpu")

    def save(self, target: Path) -> None:
        """Writes it, if there is one, as a folder of its own; from then on no other one can be put in its place.

        Raises:
            ValueError: if the one in memory is of a kind that cannot be saved.
        """
        if self.codec_path is None:
            if self._loaded is not None:
                save_audio_tokenizer(self._loaded, target)
        elif (source := Path(self._source())).is_dir():
            copy_audio_tokenizer(source, target)
        else:  # a Hub id: whole, whatever part of it is in memory
            save_audio_tokenizer(self.load(encoder_only=False), target)
        self._fingerprint = self.fingerprint

    def _source(self) -> str | Path:
        """A folder or Hub id: relative to the processor's own place first, so that a moved folder still works."""
        assert self.codec_path is not None
        if self.origin is not None:
            folder = self.origin.subfolder(self.codec_path)
            if folder is not None:
                return folder
        return self.codec_path

    # Its codes

    @property
    def known_fingerprint(self) -> str | None:
        """The fingerprint as far as it is known without loading anything."""
        return self._fingerprint

    @property
    def fingerprint(self) -> str | None:
        """Of the audio tokenizer whose codes the LLM knows (it may have to be loaded to tell); None if it has none."""
        if self._fingerprint is None and self.exists:
            self._fingerprint = self.get().fingerprint()
        return self._fingerprint

    def codes_of(self, parts: Sequence[AudioPart]) -> list[list[int]]:
        """The codes of each part, in order; one call of the audio tokenizer per sample rate.

        Raises:
            ForeignCodesError: a ValueError, if codes are another audio tokenizer's.
            ValueError: if a recording gives none.
            AudioError: if a recording cannot be used.
        """
        codes: dict[int, list[int]] = {}
        waveforms: dict[int, list[tuple[int, Tensor]]] = {}
        for index, part in enumerate(parts):
            if part.codes is not None:
                self.check_maker(part.audio_tokenizer, part.where)
                codes[index] = list(part.codes)
            else:
                waveform, sample_rate = part.load(mono=self.mono)
                waveforms.setdefault(sample_rate, []).append((index, waveform))
        for sample_rate, clips in waveforms.items():
            # All at once: the audio tokenizer sorts by length and pads little, which a call per clip could not.
            encoded = self.get().encode([waveform for _, waveform in clips], sample_rate).tolist()
            codes.update(zip((index for index, _ in clips), encoded, strict=True))
        for index, part in enumerate(parts):
            if not codes[index]:
                raise ValueError(f"{part.where or f'audio {index}'}: gives no codes; leave it out")
        return [codes[index] for index in range(len(parts))]

    def waveforms_of(self, clips: Sequence[Tensor], **options: Any) -> list[Tensor]:
        """The sound of codes.

        Args:
            clips: int64 codes ``[T]`` of each clip.
            options: of the audio tokenizer's ``decode``, such as ``speaker`` and ``seed``.

        Returns:
            float32 ``[N]`` of each clip, at the audio tokenizer's ``output_sample_rate``.

        Raises:
            ValueError: if the audio tokenizer cannot decode.
        """
        audio_tokenizer = self.get()
        if not audio_tokenizer.can_decode:
            raise ValueError(
                f"codes cannot become sound, for {audio_tokenizer.why_no_sound}: use an audio tokenizer with a "
                "waveform decoder"
            )
        return list(audio_tokenizer.decode(Codes.from_list([clip[None] for clip in clips]), **options))

    def _in_one_row(self, audio_tokenizer: AudioTokenizer) -> AudioTokenizer:
        """The audio tokenizer as the LLM sees it: with one codebook, or with the layout of several.

        Raises:
            ValueError: if its codes are not those of the audio vocabulary.
        """
        if isinstance(audio_tokenizer, OneRowTokenizer) and audio_tokenizer.layout == self.layout:
            return audio_tokenizer
        own: CodeLayout | GroupedLayout | str = self.layout or f"1 x {self.codebook_size} codes"
        if isinstance(audio_tokenizer, OneRowTokenizer):
            raise ValueError(
                f"the audio tokenizer gives rows of {audio_tokenizer.layout}, but the audio vocabulary is one of "
                f"{own}: use the audio tokenizer, codebooks and code_order that the LLM was extended for"
            )
        if isinstance(self.layout, GroupedLayout):
            return GroupedSequenceTokenizer(audio_tokenizer, self.layout)
        sizes = audio_tokenizer.codebook_sizes
        if self.layout is not None and sizes[: self.layout.num_codebooks] == self.layout.codebook_sizes:
            return SequenceTokenizer(audio_tokenizer, self.layout)
        if self.layout is not None or sizes != (self.codebook_size,):
            have = f"{len(sizes)} x {'/'.join(map(str, dict.fromkeys(sizes)))} codes"
            raise ValueError(
                f"the audio tokenizer has {have}, but the text tokenizer holds an audio vocabulary of {own}: use the "
                "audio tokenizer that the LLM was extended for"
            )
        return audio_tokenizer

    def check_maker(self, made_by: str | None, where: str) -> None:
        """Refuses codes that say that another audio tokenizer made them; the LLM would take them for other sounds.

        Args:
            made_by: its fingerprint; None: they say nothing.
            where: the place of the codes.

        Raises:
            ForeignCodesError: a ValueError: they are another's; the message names both.
        """
        if made_by is None or made_by in self.accepted_codes:
            return
        own = self.fingerprint
        if own is not None and own != made_by:
            raise ForeignCodesError(
                f"{where or 'audio'}: its codes were made by another audio tokenizer ({made_by}) "
                f"than the LLM's ({own}): tokenize the recordings with the LLM's own; if both give the same codes (one "
                "in lower precision), accept that fingerprint (accepted_codes of the processor, accept_codes_of in a "
                "training)"
            )


class HasAudioTokenizer:
    """What a processor says of the audio tokenizer that is attached to it: the same for every kind of processor."""

    _attached: AttachedAudioTokenizer

    @property
    def audio_tokenizer(self) -> AudioTokenizer:
        """The audio tokenizer; loaded on first use, to `audio_device`."""
        return self._attached.get()

    @audio_tokenizer.setter
    def audio_tokenizer(self, audio_tokenizer: AudioTokenizer) -> None:
        self._attached.set(audio_tokenizer)

    @property
    def has_audio_tokenizer(self) -> bool:
        """Whether there is an audio tokenizer, loaded or not; without one only codes and text can be processed."""
        return self._attached.exists

    def look_at_audio_tokenizer(self) -> AudioTokenizer | None:
        """The audio tokenizer, to ask it what it is and can: one that is not loaded yet is opened for that alone.

        Returns:
            None if there is none.

        Raises:
            ValueError: if it is another one than that whose codes the LLM knows.
        """
        return self._attached.look()

    def load_audio_tokenizer(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        encoder_only: bool = True,
    ) -> AudioTokenizer:
        """Loads the audio tokenizer from beside the processor, replacing one that is loaded.

        Args:
            device: where it runs; None: `audio_device`.
            dtype: of its weights; None: float32. Lower precision changes some codes.
            encoder_only: leave out the layers behind the quantizer, which codes do not need; saving still copies them.

        Raises:
            ValueError: if this processor knows no audio tokenizer.
        """
        return self._attached.load(device, dtype, encoder_only)

    @property
    def codec_path(self) -> str | None:
        """Where the audio tokenizer is found; None for one that was given, or if there is none."""
        return self._attached.codec_path

    @property
    def codec_fingerprint(self) -> str | None:
        """Of the audio tokenizer whose codes the LLM knows (it may have to be loaded to tell); None if it has none."""
        return self._attached.fingerprint

    @property
    def output_sample_rate(self) -> int:
        """Rate in Hz of the sound that codes become."""
        return self.audio_tokenizer.output_sample_rate

    @property
    def audio_device(self) -> torch.device | str | None:
        """Where the audio tokenizer runs, loaded or not yet; None: the CPU, or where the one given was."""
        return self._attached.device

    @audio_device.setter
    def audio_device(self, device: torch.device | str | None) -> None:
        self._attached.device = device

    @property
    def mono(self) -> Mono:
        """Which waveform of several channels is heard: the first one (as by the reference tokenizer) or their mean."""
        return self._attached.mono

    @mono.setter
    def mono(self, mono: Mono) -> None:
        self._attached.mono = mono

    @property
    def accepted_codes(self) -> frozenset[str]:
        """Fingerprints of audio tokenizers whose codes count as those of the own one (such as it in bfloat16)."""
        return self._attached.accepted_codes

    @accepted_codes.setter
    def accepted_codes(self, fingerprints: frozenset[str]) -> None:
        self._attached.accepted_codes = fingerprints

    def check_maker(self, made_by: str | None, where: str) -> None:
        """Refuses codes that say that another audio tokenizer made them than the LLM's.

        Args:
            made_by: its fingerprint; None: they say nothing.
            where: the place of the codes, such as a file of them.

        Raises:
            ValueError: they are another's, which is not one of `accepted_codes` either; the message names both.
        """
        self._attached.check_maker(made_by, where)
