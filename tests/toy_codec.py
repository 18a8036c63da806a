"""A kind of audio tokenizer for tests: a residual quantizer of loudness with any number of codebooks, or without sound.

The mean magnitude of 1,600 samples is a number of K digits in base V; a first few of them are a coarser loudness.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from audiollm.tokenizer import kinds, opening
from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.kinds import CONFIG, TokenizerKind
from audiollm.tokenizer.zoo.codec import CodecTokenizer, own_settings

FRAME = 1600


class ToyCodec(CodecTokenizer):
    """K codebooks of V codes at 10 Hz, 16 kHz."""

    kind_name: ClassVar[str] = "toy"

    def __init__(
        self, num_codebooks: int = 8, codebook_size: int = 8, *, decodes: bool = True, first: bool = True, seed: int = 0
    ) -> None:
        super().__init__()
        self._settings = {
            "num_codebooks": num_codebooks, "codebook_size": codebook_size, "decodes": decodes, "first": first,
        }  # fmt: skip
        self.encoder_only = False
        self.loudest = nn.Parameter(torch.tensor([1.0 + seed]))

    @classmethod
    def read(cls, folder: Path, *, encoder_only: bool = False, **options: Any) -> ToyCodec:
        from safetensors.torch import load_file

        stated = own_settings(read_json_object(folder / CONFIG))
        made = cls(stated.pop("num_codebooks"), stated.pop("codebook_size"), **stated)
        made.load_state_dict(load_file(folder / "model.safetensors"))
        made.encoder_only = encoder_only
        return made

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    @property
    def frame_samples(self) -> int:
        return FRAME

    @property
    def sample_rate(self) -> int:
        return 16000

    @property
    def num_codebooks(self) -> int:
        return int(self._settings["num_codebooks"])

    @property
    def codebook_size(self) -> int:
        return int(self._settings["codebook_size"])

    @property
    def can_decode(self) -> bool:
        return bool(self._settings["decodes"]) and not self.encoder_only

    @property
    def decodes_first_codebooks(self) -> bool:
        return bool(self._settings["first"])

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        level = waveforms_BN.reshape(len(waveforms_BN), -1, FRAME).abs().double().mean(dim=2) / self.loudest.double()
        codes = []
        for _ in range(self.num_codebooks):
            level = (level * self.codebook_size).clamp(0, self.codebook_size - 1e-9)
            codes.append(level.floor().long())
            level = level - codes[-1]
        return torch.stack(codes, dim=1)

    def decode_batch(self, codes_BKT: Tensor) -> Tensor:
        scales = self.codebook_size ** -torch.arange(1.0, 1 + codes_BKT.shape[1])
        level = (codes_BKT * scales[:, None]).sum(dim=1) * self.loudest.float()
        return level.repeat_interleave(FRAME, dim=1)

    def encode_stream(self, chunks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
        held = torch.zeros(0)
        for chunk in chunks:
            held = torch.cat([held, chunk])
            whole = len(held) // FRAME * FRAME
            if whole:
                yield self.encode([held[:whole]], sample_rate)[0]
            held = held[whole:]
        if len(held):
            yield self.encode([held], sample_rate)[0]

    def decode_stream(
        self, codes: Iterable[Tensor], speaker: Tensor | None = None, prompt: Any = None
    ) -> Iterator[Tensor]:
        for piece in codes:
            yield self.decode(piece, speaker, prompt)[0]


TOY = TokenizerKind(
    "toy", "toy", "tests.toy_codec:ToyCodec", "config.json with loudness", lambda view: False, "any", "none"
)


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the kind known for one test."""
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, TOY))
    monkeypatch.setattr(opening, "KINDS", (*opening.KINDS, TOY))


def sound(seconds: float = 1.0, seed: int = 0) -> Tensor:
    """A noise whose loudness changes from frame to frame."""
    generator = torch.Generator().manual_seed(seed)
    num_samples = int(seconds * 16000)
    levels = torch.rand(-(-num_samples // FRAME), generator=generator).repeat_interleave(FRAME)[:num_samples]
    return levels * (2 * torch.rand(num_samples, generator=generator) - 1)
