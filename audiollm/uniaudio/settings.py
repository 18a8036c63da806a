"""How an answer is written, and what of it comes when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .special_ids import AUDIO_PARTS


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How an answer is written. Defaults are those of the published code.

    Args:
        output: what is written, frames of codes or text.
        parts: the audio parts in their order; leave out reasoning where the prompt ends with it.
        max_frames: most frames of an answer, marks not counted.
        max_new_tokens: most text tokens of an answer.
        temperature: 0 takes what is most likely.
        top_k: how many of the most likely ids are drawn from; None: all.
        seed: of the draws; None: torch's own generator goes on.
        guidance_scale: how far logits are moved away from those without the prompt; 1: not at all.
        unconditional_ids: the prompt that guidance moves away from, of the shape of the prompt; None: the prompt with
            ``text_pad`` in place of each step.
        unconditional_mask: which ids of it are there.
        stop_ids: text ids that end an answer; None: those of the text LLM, and the end marks of texts.
        use_cache: whether keys and values are kept from step to step.

    Raises:
        ValueError: naming the setting that is out of range.
    """

    output: Literal["audio", "text"] = "audio"
    parts: Sequence[str] = AUDIO_PARTS
    max_frames: int = 500
    max_new_tokens: int = 256
    temperature: float = 0.9
    top_k: int | None = 200
    seed: int | None = None
    guidance_scale: float = 1.0
    unconditional_ids: Tensor | None = None
    unconditional_mask: Tensor | None = None
    stop_ids: Sequence[int] | None = None
    use_cache: bool = True

    def __post_init__(self) -> None:
        if self.output not in ("audio", "text"):
            raise ValueError(f"output={self.output!r}: use 'audio' or 'text'")
        if not self.parts or len(set(self.parts)) < len(self.parts) or not set(self.parts) <= set(AUDIO_PARTS):
            raise ValueError(f"parts={list(self.parts)}: name each of {', '.join(AUDIO_PARTS)} at most once")
        for name in ("max_frames", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use at least 1")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature={self.temperature}: use 0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k}: use at least 1, or None for all ids")
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise ValueError(f"guidance_scale={self.guidance_scale}: use 0 or more; 1 is none")
        if self.output == "text" and self.guidance_scale != 1:
            raise ValueError(f"guidance_scale={self.guidance_scale} with output='text': guidance is for audio alone")
        if (self.unconditional_ids is None) != (self.unconditional_mask is None):
            raise ValueError("unconditional_ids and unconditional_mask: give both or neither")


@dataclass(frozen=True)
class StreamedText:
    """A text token of an answer."""

    row: int
    token_id: int


@dataclass(frozen=True)
class StreamedFrame:
    """A frame of an answer."""

    row: int
    part: str
    """``"reasoning"`` or ``"reconstruction"``"""
    codes: Tensor
    """int64 ``[K]``, counted inside the part's own vocabulary."""


class Choice:
    """Picks an id per row of logits.

    Args:
        temperature: 0 takes the largest.
        top_k: how many of the largest are drawn from; None: all.
        seed: of the draws; None: torch's own generator goes on.
        device: where the logits are.
    """

    def __init__(
        self, temperature: float, top_k: int | None, seed: int | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.temperature = temperature
        self.top_k = top_k
        self.generator = None if seed is None else torch.Generator(device).manual_seed(seed)

    def __call__(self, logits: Tensor) -> Tensor:
        """Returns ids ``[B]`` for logits ``[B, A]``."""
        if self.temperature == 0 or self.top_k == 1:
            return logits.argmax(-1)
        logits = logits.float() / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -math.inf)
        return torch.multinomial(logits.softmax(-1), 1, generator=self.generator)[:, 0]
