"""Ways to make a teacher's features small, with one interface: SemBo, main directions, merged channels."""
# Shapes: S frames of all clips, T frames of one, E feature size, D small size.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.tokenizer.losatok.bottleneck import SemanticBottleneck, reconstruction_loss, relation_loss
from audiollm.tokenizer.losatok.configuration import SemanticConfig

Method = Literal["sembo", "sembo-without-relation", "pca", "svd", "merging"]
TRAINED: tuple[Method, ...] = ("sembo", "sembo-without-relation")
METHODS: tuple[Method, ...] = (*TRAINED, "pca", "svd", "merging")


class Small(Protocol):
    """Features made small, and restored."""

    def __call__(self, high: Tensor, /) -> tuple[Tensor, Tensor]:
        """Of ``[T, E]`` makes small ones ``[T, D]`` and restored ones ``[T, E]``."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How SemBo is trained on features that are there; weights and optimizer are those of the first stage."""

    steps: int = 500
    clips_per_update: int = 4
    segment_tokens: int = 75
    learning_rate: float = 1e-3
    bottleneck_size: int = 256
    reconstruction_weight: float = 1000.0


def fit(method: Method, clips: Sequence[Tensor], size: int, seed: int, settings: FitSettings) -> Small:
    """Fits a way of making features small to those of some clips.

    Args:
        method: which.
        clips: features to learn from, ``[T_i, E]``.
        size: D.
        seed: of weights and order; without effect where nothing is drawn.
        settings: of SemBo.

    Raises:
        ValueError: if features are no larger than D.
    """
    if size >= clips[0].shape[1]:
        raise ValueError(f"latent size {size} does not make features of {clips[0].shape[1]} numbers small")
    if method == "merging":
        return Merged(size)
    if method == "pca" or method == "svd":
        return Directions.of(torch.cat(list(clips)), size, centred=method == "pca")
    return _trained(clips, size, seed, settings, relation_weight=1.0 if method == "sembo" else 0.0)


@dataclass(frozen=True)
class Merged:
    """The mean of neighbouring channels; restored, each has that mean."""

    size: int

    def __call__(self, high: Tensor, /) -> tuple[Tensor, Tensor]:
        low = F.adaptive_avg_pool1d(high[:, None], self.size)[:, 0]
        return low, F.interpolate(low[:, None], size=high.shape[1], mode="nearest")[:, 0]


@dataclass(frozen=True)
class Directions:
    """Coordinates along main directions: of the variance (PCA), or of the features as they are (truncated SVD)."""

    mean: Tensor  # [E]
    directions: Tensor  # [E, D]

    @classmethod
    def of(cls, features_SE: Tensor, size: int, *, centred: bool) -> Directions:
        """Finds the directions."""
        values = features_SE.double()
        mean = values.mean(dim=0) if centred else values.new_zeros(values.shape[1])
        values = values - mean
        vectors = torch.linalg.eigh(values.T @ values).eigenvectors
        return cls(mean.float(), vectors[:, -size:].flip(1).float())

    def __call__(self, high: Tensor, /) -> tuple[Tensor, Tensor]:
        low = (high - self.mean) @ self.directions
        return low, low @ self.directions.T + self.mean


def _trained(
    clips: Sequence[Tensor], size: int, seed: int, settings: FitSettings, *, relation_weight: float
) -> SemanticBottleneck:
    config = SemanticConfig(feature_size=clips[0].shape[1], bottleneck_size=settings.bottleneck_size, latent_size=size)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SemanticBottleneck(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.8, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for _ in range(settings.steps):
        optimizer.zero_grad()
        drawn = torch.randint(len(clips), (settings.clips_per_update,), generator=generator).tolist()
        segments = [_segment(clips[number], settings.segment_tokens, generator) for number in drawn]
        low, restored = model(torch.cat(segments))
        lengths = [len(segment) for segment in segments]
        losses = []
        for own_low, own_restored, high in zip(low.split(lengths), restored.split(lengths), segments, strict=True):
            losses.append(settings.reconstruction_weight * reconstruction_loss(own_restored, high))
            if relation_weight:
                losses.append(relation_weight * relation_loss(own_low[None], high[None]))
        (torch.stack(losses).sum() / len(segments)).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def _segment(clip_TE: Tensor, longest: int, generator: torch.Generator) -> Tensor:
    room = len(clip_TE) - longest
    first = int(torch.randint(room + 1, (), generator=generator)) if room > 0 else 0
    return clip_TE[first : first + longest]
