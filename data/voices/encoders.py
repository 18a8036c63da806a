"""Speaker encoders: a recording to a vector that says whose voice it is. Others can add theirs under a name.

In code, `register_speaker_encoder`; from an installed package, an entry point, which is found by itself::

    [project.entry-points."audiollm.speaker_encoders"]
    mine = "my_package.voices:load_encoder"
"""
# Shapes: N samples, S size of a speaker vector.

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.sources import AudioSource
from audiollm.data.plugins import PluginNames

from .resemblyzer import fetch_resemblyzer, load_resemblyzer

ENTRY_POINT_GROUP = "audiollm.speaker_encoders"
DEFAULT_SPEAKER_ENCODER = "resemblyzer"


@runtime_checkable
class SpeakerEncoder(Protocol):
    """What a speaker encoder offers."""

    @property
    def embedding_size(self) -> int:
        """S: the size of its vectors."""

    def embed(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Describes the voice of a recording.

        Args:
            waveform: float in [-1, 1], ``[N]``.
            sample_rate: Hz; any.

        Returns:
            float32 ``[S]`` on the CPU, of Euclidean length 1, so that a dot product is the cosine similarity.

        Raises:
            ValueError: there is no sound to describe.
        """


SpeakerEncoderFactory = Callable[[torch.device], SpeakerEncoder]
"""Loads an encoder onto a device."""


_encoders: PluginNames[SpeakerEncoder] = PluginNames("speaker encoder", ENTRY_POINT_GROUP)
_encoders.register(DEFAULT_SPEAKER_ENCODER, load_resemblyzer)


def register_speaker_encoder(name: str, factory: SpeakerEncoderFactory, *, replace: bool = False) -> None:
    """Adds a speaker encoder under a name, for `load_speaker_encoder`.

    Args:
        name: how users ask for it.
        factory: called with the device, and only when the encoder is asked for.
        replace: allow a name that is taken.

    Raises:
        ValueError: the name is empty, or taken.
    """
    _encoders.register(name, factory, replace=replace)


def available_speaker_encoders() -> list[str]:
    """Names that `load_speaker_encoder` knows: ours, registered ones, and those of installed packages."""
    return _encoders.available()


def load_speaker_encoder(name: str = DEFAULT_SPEAKER_ENCODER, device: torch.device | str = "cpu") -> SpeakerEncoder:
    """Loads a speaker encoder.

    Args:
        name: one of `available_speaker_encoders`.
        device: where it computes.

    Raises:
        ValueError: no such encoder, or what a package offers under this name is none.
        PackageError: the weights of the default encoder cannot be fetched.
    """
    encoder = _encoders.make(name, torch.device(device))
    if not isinstance(encoder, SpeakerEncoder):
        raise ValueError(
            f"the speaker encoder {name!r} is a {type(encoder).__name__} without embedding_size and embed(); see "
            "SpeakerEncoder"
        )
    return encoder


def check_speaker_encoder(name: str) -> None:
    """Sees to it that a speaker encoder is there, without loading it; what a package registry has is fetched.

    Args:
        name: as for `load_speaker_encoder`.

    Raises:
        ValueError: there is no such encoder.
        PackageError: its weights cannot be fetched.
    """
    if _encoders.factory(name) is load_resemblyzer:
        fetch_resemblyzer()


def embed_recording(encoder: SpeakerEncoder, source: AudioSource) -> Tensor:
    """The speaker vector of a recording, float32 ``[S]``. Raises `AudioError` as `load_audio` does."""
    return encoder.embed(*load_audio(source))
