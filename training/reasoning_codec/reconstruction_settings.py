"""Settings of the last stage alone: reconstruction and the flow decoder, around frozen reasoning codes.

The published paper (arXiv 2602.04683) gives the sizes, the share of clips without reasoning codes and of those without
a condition, how many latents are given, and which losses there are. Their weights, the length of a segment, and how
often latents are given are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from audiollm.tokenizer.reasoningcodec.model import FILM_DROPOUT
from audiollm.tokenizer.reasoningcodec.windows import ENCODED_SECONDS
from audiollm.training.loop.config import require_not_negative, require_positive

_PREFIX = "reconstruction."


@dataclass(frozen=True, kw_only=True)
class ReconstructionSettings:
    """Settings of ``stage: reconstruction`` alone."""

    sqcodec: str | None = None
    """The frozen SQCodec whose latents are learned: a run of ``train_codec.py``, a release's folder, or a Hub id. None:
    the one that the codec has, after an earlier reconstruction."""

    phone_quantizer: tuple[int, ...] = (1, 8192, 32)
    """Codebooks, entries of each, numbers of an entry; so are the other two. With a codec that has been through
    reconstruction, sizes are its own."""

    structure_quantizer: tuple[int, ...] = (1, 8192, 32)
    acoustic_quantizer: tuple[int, ...] = (6, 8192, 32)

    film: bool = True
    """Whether the reasoning codes move the features that these quantize, as published; else they are heard by the
    decoder alone."""

    dit_layers: int = 32
    """Blocks of the flow's transformer."""

    dit_heads: int = 24
    dit_head_size: int = 64
    dit_inner_size: int = 6144
    """Of its inner layers."""

    dit_positions: int = 3000
    """Most latents at once that it can be asked for, 25 a second. Clips are decoded 750 at a time."""

    dit_time_size: int = 512
    """Cosines and sines of the flow's time."""

    segment_seconds: float = 10.0
    """Length of each segment that is cut out of a recording at random; shorter ones are filled with silence."""

    film_dropout: float = FILM_DROPOUT
    """Share of the segments that the reasoning codes have no say in, in training alone. Of all of them they would have
    none in what is trained, so that 1 is refused."""

    condition_dropout: float = 0.1
    """Share of the segments whose latents are made without a condition, for guidance."""

    given_latents: tuple[int, int] = (32, 64)
    """Fewest and most of the first latents that are given where some are; of short segments at most half."""

    given_share: float = 0.5
    """Share of the segments of which some are given. Others are made from nothing, as the beginning of a clip is."""

    flow_weight: float = 1.0
    """Weight of the error of the flow's velocity."""

    commitment_weight: float = 1.0
    """Weight of the distance between features and entries, of the three quantizers."""

    phone_weight: float = 1.0
    """Weight of the error of WavLM's features, as a head for training alone reads them out of the phone code."""

    structure_weight: float = 1.0
    """Weight of the error of the music encoder's late features, as a head reads them out of the structure code."""

    eval_seconds: float = 10.0
    """Of held-out recordings that are longer the beginning counts."""

    eval_steps: int = 10
    """Of the flow, where evaluations decode."""

    eval_guidance: float = 1.5
    """Strength of their guidance; 1: none."""

    def __post_init__(self) -> None:
        require_positive(
            self, "dit_layers", "dit_heads", "dit_head_size", "dit_inner_size", "dit_positions", "dit_time_size",
            "segment_seconds", "eval_seconds", "eval_steps", "eval_guidance", prefix=_PREFIX,
        )  # fmt: skip
        require_not_negative(
            self, "flow_weight", "commitment_weight", "phone_weight", "structure_weight", prefix=_PREFIX
        )
        for name in ("segment_seconds", "eval_seconds"):
            if getattr(self, name) > ENCODED_SECONDS:
                raise ValueError(
                    f"{_PREFIX}{name}={getattr(self, name):g}: {ENCODED_SECONDS} s are heard at once; use at most that"
                )
        for name in ("film_dropout", "condition_dropout", "given_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{_PREFIX}{name}={getattr(self, name)}: use a share between 0 and 1")
        if self.film_dropout == 1:
            raise ValueError(
                f"{_PREFIX}film_dropout=1: what the reasoning codes say would never be learned, and yet be heard when "
                f"clips are encoded; use less, and {_PREFIX}film=false for codes that they do not move"
            )
        fewest, most = self.given_latents
        if not 0 < fewest <= most:
            raise ValueError(f"{_PREFIX}given_latents={list(self.given_latents)}: give the fewest and the most, from 1")
