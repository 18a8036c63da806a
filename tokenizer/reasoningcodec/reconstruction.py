"""The reconstruction branch: phones, structure and acoustics at 12.5 Hz, moved by what the reasoning codes say."""
# Shapes: B clips, F frames of 25 Hz, S vectors of 50 Hz, T reconstruction codes, R reasoning codes, D size.

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiollm.tokenizer.quantizer.projected import ProjectedResidualQuantizer
from audiollm.tokenizer.quantizer.rvq import ResidualOutput

from .configuration import BRANCHES, RECONSTRUCTION_FRAMES, SPEECH_FRAMES, ReasoningCodecConfig

FILM_RANGE = 0.1
"""By how much reasoning codes may stretch a feature."""


@dataclass
class Heard:
    """What the frozen encoders say of a batch of equally long clips.

    Args:
        whisper: ``[B, S, D]``.
        wavlm: ``[B, S, D]``.
        acoustic: of the music encoder's early layers, ``[B, F, D]``.
        semantic: of its late ones, ``[B, F, D]``.
    """

    whisper: Tensor
    wavlm: Tensor
    acoustic: Tensor
    semantic: Tensor


class ReconstructionBranch(nn.Module):
    """Three features, each with a quantizer of its own; their sum is what is decoded."""

    def __init__(self, config: ReasoningCodecConfig) -> None:
        super().__init__()
        self.interval = config.query_interval
        speech, music = SPEECH_FRAMES * RECONSTRUCTION_FRAMES, RECONSTRUCTION_FRAMES
        self.downsample = nn.ModuleDict(
            {
                name: nn.Conv1d(size, size, stride, stride=stride)
                for name, size, stride in (
                    ("whisper", config.whisper_size, speech),
                    ("wavlm", config.wavlm_size, speech),
                    ("acoustic", config.music_size, music),
                    ("semantic", config.music_size, music),
                )
            }
        )
        sizes = {
            "phone": config.wavlm_size,
            "structure": config.music_size,
            "acoustic": config.music_size + config.whisper_size,
        }
        self.fuse = nn.ModuleDict({name: nn.Linear(sizes[name], config.size) for name in BRANCHES})
        branches = BRANCHES if config.film else ()
        self.film = nn.ModuleDict({name: nn.Linear(config.size, 2 * config.size) for name in branches})
        self.adaptor = nn.Linear(config.size, config.size)
        self.quantizers = nn.ModuleDict(
            {name: ProjectedResidualQuantizer(*config.quantizer_sizes(name), config.size) for name in BRANCHES}
        )

    def quantizer(self, branch: str) -> ProjectedResidualQuantizer:
        """One of the three."""
        found = self.quantizers[branch]
        assert isinstance(found, ProjectedResidualQuantizer)
        return found

    def features(self, heard: Heard) -> dict[str, Tensor]:
        """The three features, ``[B, T, D]`` each, before the reasoning codes move them."""
        low = {
            name: self.downsample[name](getattr(heard, name).transpose(1, 2)).transpose(1, 2)
            for name in ("whisper", "wavlm", "acoustic", "semantic")
        }
        acoustic_BTD = torch.cat([low["acoustic"], low["whisper"]], dim=-1)
        inputs = {"phone": low["wavlm"], "structure": low["semantic"], "acoustic": acoustic_BTD}
        return {name: self.fuse[name](inputs[name]) for name in BRANCHES}

    def tokens_of(self, first: int, count: int) -> Tensor:
        """The reasoning code that each of some reconstruction codes belongs to, int64 ``[T]``."""
        return torch.arange(first, first + count) * RECONSTRUCTION_FRAMES // self.interval

    def influence(self, reasoning_BRD: Tensor, tokens_T: Tensor) -> Tensor:
        """What the reasoning codes say at each reconstruction code, ``[B, T, D]``.

        Args:
            reasoning_BRD: what the reasoning quantizer says of its codes.
            tokens_T: which of them each belongs to.
        """
        adapted_BRD: Tensor = self.adaptor(reasoning_BRD)
        return adapted_BRD[:, tokens_T.to(adapted_BRD.device)]

    def moved(
        self, features: dict[str, Tensor], influence_BTD: Tensor, keep_B: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Stretches and shifts the features (FiLM: Perez et al., 2018, arXiv:1709.07871), unless made without ``film``.

        Args:
            features: of the three branches.
            influence_BTD: what the reasoning codes say.
            keep_B: bool; False leaves a clip's features as they are, as a fifth of them in training; None: all moved.
        """
        if not self.film:
            return features
        moved = {}
        for name, feature_BTD in features.items():
            gain_BTD, shift_BTD = self.film[name](influence_BTD).chunk(2, dim=-1)
            made_BTD = feature_BTD * (1 + FILM_RANGE * gain_BTD.tanh()) + shift_BTD
            moved[name] = made_BTD if keep_B is None else torch.where(keep_B[:, None, None], made_BTD, feature_BTD)
        return moved

    def encode(self, features: dict[str, Tensor]) -> Tensor:
        """The codes of features, int64 ``[B, K, T]``: phone, structure, acoustic."""
        return torch.cat([self.quantizer(name).encode(features[name]) for name in BRANCHES], dim=1)

    def quantize(
        self, features: dict[str, Tensor], mask_BT: Tensor | None = None, example_ids_B: Tensor | None = None
    ) -> dict[str, ResidualOutput]:
        """As `encode`, of each branch, with all that its training needs; see `ResidualQuantizer.forward`."""
        return {name: self.quantizer(name)(features[name], mask_BT, example_ids_B) for name in BRANCHES}

    def decode(self, codes_BKT: Tensor) -> Tensor:
        """Sums what the codes of the three branches say, ``[B, T, D]``."""
        return torch.stack(list(self.decoded(codes_BKT).values())).sum(dim=0)

    def decoded(self, codes_BKT: Tensor) -> dict[str, Tensor]:
        """What the codes of each branch say, ``[B, T, D]``."""
        counts = [len(self.quantizer(name)) for name in BRANCHES]
        parts = codes_BKT.split(counts, dim=1)
        return {name: self.quantizer(name).decode(part) for name, part in zip(BRANCHES, parts, strict=True)}
