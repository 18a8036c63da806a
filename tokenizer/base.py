"""The interface of every audio tokenizer: waveforms to integer codes and, where the checkpoint can, back.

A language model needs nothing else of a tokenizer: it sees codes, a frame rate and the sizes of its codebooks. A
tokenizer without codes has continuous latents in their place.
"""
# Shapes: B clips, K codebooks, T frames (T_i of one clip), N samples, D feature or latent size.

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .opening import open_tokenizer


@dataclass
class Codes:
    """The codes of a batch of clips of different lengths.

    Args:
        codes: int64 in [0, V), right-padded with 0, ``[B, K, T]``.
        lengths: frames of each clip, int64, ``[B]``.
        features: what the quantizer saw, one float tensor ``[T_i, D]`` per clip; None unless asked for.
    """

    codes: Tensor
    lengths: Tensor
    features: list[Tensor] | None = None

    def __len__(self) -> int:
        return self.codes.shape[0]

    def __getitem__(self, index: int) -> Tensor:
        """Returns the codes of one clip without padding, ``[K, T_i]``."""
        return self.codes[index, :, : int(self.lengths[index])]

    def tolist(self) -> list[list[Any]]:
        """Returns one list of codes per clip, or K lists per clip when there are several codebooks."""
        clips = [self[index] for index in range(len(self))]
        if self.codes.shape[1] == 1:
            return [clip[0].tolist() for clip in clips]
        return [clip.tolist() for clip in clips]

    @classmethod
    def from_list(
        cls, clips: Sequence[Tensor], features: list[Tensor] | None = None, num_codebooks: int | None = None
    ) -> Codes:
        """Pads clips of different lengths into one batch.

        Args:
            clips: int64 codes of each clip, ``[K, T_i]``; all with the same K.
            features: as the field of the same name.
            num_codebooks: K, only needed when ``clips`` may be empty.

        Raises:
            ValueError: if a clip is not ``[K, T_i]``, or the clips differ in K.
        """
        num_codebooks = num_codebooks or (clips[0].shape[0] if clips else 1)
        for index, clip in enumerate(clips):
            if clip.dim() != 2 or clip.shape[0] != num_codebooks:
                raise ValueError(f"clip {index} has codes of shape {list(clip.shape)}; expected [{num_codebooks}, T]")
        lengths = torch.tensor([clip.shape[1] for clip in clips], dtype=torch.int64)
        longest = int(lengths.max()) if len(clips) else 0
        codes = torch.zeros(len(clips), num_codebooks, longest, dtype=torch.int64)
        for index, clip in enumerate(clips):
            codes[index, :, : clip.shape[1]] = clip
        return cls(codes, lengths, features)


@dataclass
class Latents:
    """The continuous latents of a batch of clips of different lengths.

    Args:
        latents: float32, right-padded with 0, ``[B, T, D]``.
        lengths: frames of each clip, int64, ``[B]``.
        mean: of the distribution that latents are drawn from, as ``latents``; None where there is none.
        log_variance: of the same.
        features: further features by name, one float tensor ``[T_i, any]`` per clip; None unless asked for.
    """

    latents: Tensor
    lengths: Tensor
    mean: Tensor | None = None
    log_variance: Tensor | None = None
    features: dict[str, list[Tensor]] | None = None

    def __len__(self) -> int:
        return self.latents.shape[0]

    def __getitem__(self, index: int) -> Tensor:
        """Returns the latents of one clip without padding, ``[T_i, D]``."""
        return self.latents[index, : int(self.lengths[index])]


@dataclass(frozen=True)
class CodeGroup:
    """Codebooks of one rate.

    Args:
        name: of the group among those of its tokenizer.
        frame_rate: frames per second, in Hz.
        codebook_sizes: V of each codebook.
    """

    name: str
    frame_rate: float
    codebook_sizes: tuple[int, ...]

    @property
    def tokens_per_second(self) -> float:
        """Codes of all its codebooks."""
        return self.frame_rate * len(self.codebook_sizes)

    @property
    def bits_per_second(self) -> float:
        """What its codes take where each is as likely as the others."""
        return self.frame_rate * sum(math.log2(size) for size in self.codebook_sizes)

    def __str__(self) -> str:
        return f"{self.name}: {len(self.codebook_sizes)} at {self.frame_rate:g} Hz"


@dataclass
class GroupedCodes:
    """The codes of a batch of clips, of a tokenizer whose codes have several rates.

    Args:
        groups: the codes of each group, by its name, all of the same clips.
    """

    groups: Mapping[str, Codes]

    def __len__(self) -> int:
        return len(next(iter(self.groups.values())))

    def __iter__(self) -> Iterator[Codes]:
        """The groups, so that ``reasoning, reconstruction = tokenizer.encode(...)``."""
        return iter(self.groups.values())

    def __getitem__(self, name: str) -> Codes:
        """The codes of a group."""
        return self.groups[name]

    @property
    def lengths(self) -> Tensor:
        """Frames of each clip in the group that has most, int64 ``[B]``."""
        return torch.stack([one.lengths for one in self.groups.values()]).amax(dim=0)

    def clip(self, index: int) -> dict[str, Tensor]:
        """The codes of one clip without padding, ``[K, T_i]``, by group."""
        return {name: one[index] for name, one in self.groups.items()}


def require_one_rate(audio_tokenizer: AudioTokenizer, purpose: str) -> None:
    """Refuses a tokenizer whose codes have several rates, for what needs one row of frames.

    Args:
        audio_tokenizer: any.
        purpose: what needs it, as a message begins.

    Raises:
        ValueError: naming the groups of its codes.
    """
    groups = audio_tokenizer.code_groups
    if len(groups) > 1:
        raise ValueError(
            f"{purpose}: {type(audio_tokenizer).__name__} gives codes of several rates "
            f"({'; '.join(map(str, groups))}), and one is needed: open or save it with one group of them, such as "
            f"group={groups[0].name!r}"
        )


class AudioTokenizer(ABC):
    """What a tokenizer promises to the rest of the package; sizes and rates are properties, read from its config."""

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str | Path, /, **options: Any) -> AudioTokenizer:
        """Loads a tokenizer of any kind, which the folder's own files tell.

        Args:
            path_or_hub_id: a folder (a tokenizer's own, its release's or its Audio-LLM's), a Hub id, or "mini".
            options: see `audiollm.tokenizer.opening.open_tokenizer`.

        Raises:
            ValueError: if it holds no tokenizer, files of two kinds, or half a checkpoint; or one of another kind than
                the class that is asked.
        """
        tokenizer = open_tokenizer(path_or_hub_id, **options)
        if not isinstance(tokenizer, cls):
            raise ValueError(f"{path_or_hub_id} holds a {type(tokenizer).__name__}, not a {cls.__name__}")
        return tokenizer

    @property
    def kind(self) -> str:
        """Name of its kind among `audiollm.tokenizer.kinds.KINDS`."""
        return "uniaudio"

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Rate in Hz at which the model works; `encode` takes any rate and resamples."""

    @property
    @abstractmethod
    def output_sample_rate(self) -> int:
        """Rate in Hz of what `decode` returns."""

    @property
    @abstractmethod
    def frame_rate(self) -> float:
        """Frames per second, in Hz; each frame holds one code per codebook.

        Raises:
            ValueError: if there are codes of several rates, see `code_groups`.
        """

    @property
    @abstractmethod
    def num_codebooks(self) -> int:
        """K: codes per frame."""

    @property
    @abstractmethod
    def codebook_size(self) -> int:
        """V: codes are in [0, V); of codebooks of different sizes, the largest."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """V of each codebook, K of them."""
        return (self.codebook_size,) * self.num_codebooks

    @property
    def code_groups(self) -> tuple[CodeGroup, ...]:
        """Its codebooks by rate: one group, but of kinds whose codes have several; none of latents."""
        if self.latent_size is not None:
            return ()
        return (CodeGroup("codes", self.frame_rate, self.codebook_sizes),)

    @property
    def bits_per_second(self) -> float:
        """What the codes take where each is as likely as the others."""
        return sum(group.bits_per_second for group in self.code_groups)

    @property
    def latent_size(self) -> int | None:
        """D of a tokenizer with continuous latents, which has no codes (K = 0); None: it has codes."""
        return None

    @property
    def is_causal(self) -> bool:
        """Whether a frame depends on no sample behind it."""
        return False

    @property
    def can_encode_stream(self) -> bool:
        """Whether `encode_stream` works."""
        return type(self).encode_stream is not AudioTokenizer.encode_stream

    @property
    def can_decode_stream(self) -> bool:
        """Whether `decode_stream` works."""
        return self.can_decode and type(self).decode_stream is not AudioTokenizer.decode_stream

    def num_frames(self, num_samples: int, sample_rate: int) -> int:
        """Counts the frames that `encode` makes of a clip, without encoding it.

        Args:
            num_samples: length of the clip at its own rate.
            sample_rate: that rate in Hz.
        """
        return math.ceil(num_samples / sample_rate * self.frame_rate)

    @property
    @abstractmethod
    def max_segment_seconds(self) -> float | None:
        """Longest piece encoded at once, in seconds; longer clips are cut, never truncated. None if free."""

    @property
    @abstractmethod
    def can_decode(self) -> bool:
        """Whether this checkpoint can turn codes back into sound."""

    @property
    def decodes_first_codebooks(self) -> bool:
        """Whether `decode` also takes the first codebooks alone, ``[k, T]``, as residual quantizers can."""
        return False

    @property
    def why_no_sound(self) -> str:
        """Why it cannot decode; for messages, where `can_decode` says that it can't."""
        return f"{type(self).__name__} has no waveform decoder"

    @property
    @abstractmethod
    def licence_note(self) -> str:
        """What a user should know about the licence of the weights."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns a hash of everything that decides the codes: equal ones give equal codes."""

    @abstractmethod
    def encode(self, waveforms: Sequence[Tensor] | Tensor, sample_rate: int) -> Any:
        """Turns waveforms (float32 in [-1, 1], each ``[N]``) into `Codes`, or `Latents` where it has no codes."""

    @abstractmethod
    def decode(self, codes: Codes | Tensor, speaker: Tensor | None = None, prompt: Any = None) -> Any:
        """Turns codes into waveforms at `output_sample_rate`."""

    def encode_stream(self, chunks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
        """Encodes consecutive pieces of one waveform, each ``[N_i]``; yields int64 codes as they are certain.

        Those are ``[T]`` of one codebook, and ``[K, T]`` of several.

        Raises:
            ValueError: unless a tokenizer has this ability.
        """
        raise ValueError(f"{type(self).__name__} cannot encode a stream; encode() the whole waveform")

    def decode_stream(
        self, codes: Iterable[Tensor], speaker: Tensor | None = None, prompt: Any = None
    ) -> Iterator[Tensor]:
        """Decodes consecutive codes of one clip, int64 ``[T_i]`` each; yields samples ``[N]`` as they are certain.

        Codes of several codebooks are ``[K, T_i]``.

        Raises:
            ValueError: unless a tokenizer has this ability.
        """
        raise ValueError(f"{type(self).__name__} cannot decode a stream; decode() the whole clip")
