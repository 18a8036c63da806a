"""How many tokens a second of audio takes, and how much of it a context holds."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.layout import CodeLayout
from audiollm.tokenizer.sequence import SequenceTokenizer

logger = logging.getLogger(__name__)

FEW_SECONDS = 10.0
"""Contexts that hold less audio than this are warned of."""
_MARKS = 2  # start and end of the audio


@dataclass(frozen=True)
class AudioRate:
    """What audio costs an LLM.

    Attributes:
        frame_rate: frames per second of the audio tokenizer, in Hz.
        layout: how its codes are one row of tokens.
    """

    frame_rate: float
    layout: CodeLayout

    @classmethod
    def of(cls, audio_tokenizer: AudioTokenizer) -> AudioRate:
        """That of a tokenizer as an LLM sees it: with one codebook, or a `SequenceTokenizer`."""
        if isinstance(audio_tokenizer, SequenceTokenizer):
            return cls(audio_tokenizer.inner.frame_rate, audio_tokenizer.layout)
        return cls(audio_tokenizer.frame_rate, CodeLayout(audio_tokenizer.codebook_sizes))

    @cached_property
    def tokens_per_second(self) -> float:
        """Tokens of a second of a long sound."""
        return self.layout.symbols_per_second(self.frame_rate)

    def seconds_in(self, tokens: int) -> float:
        """The longest sound that so many tokens hold, with its marks."""
        return self.layout.whole_frames(max(0, tokens - _MARKS)) / self.frame_rate

    def told(self, limit: str, tokens: int) -> str:
        """A line for people.

        Args:
            limit: what bounds the tokens, such as "context" or "max_length".
            tokens: how many there may be.
        """
        num, order = self.layout.num_codebooks, self.layout.order
        codebooks = "1 codebook" if num == 1 else f"{num} codebooks"
        how = "" if num == 1 else f", {order}"
        made_of = f"{codebooks} × {self.frame_rate:.10g} Hz{how}"
        return (
            f"{self.tokens_per_second:,.10g} tokens per second of audio ({made_of}), {limit} of {tokens:,} holds "
            f"{self.seconds_in(tokens):,.3g} s"
        )

    def check_room(self, limit: str, tokens: int) -> None:
        """Warns where the tokens hold only a few seconds of audio.

        Args:
            limit: as for `told`.
            tokens: how many there may be.

        Raises:
            ValueError: if not a single frame fits.
        """
        if self.seconds_in(tokens) == 0:
            raise ValueError(
                f"{limit} of {tokens} tokens holds no audio at all: a frame of {self.layout} takes "
                f"{self.layout.length(1)}, and the marks {_MARKS}; use a longer one, or fewer codebooks"
            )
        if self.seconds_in(tokens) < FEW_SECONDS:
            logger.warning(
                "%s: use a longer %s, fewer codebooks or an audio tokenizer with fewer frames for longer recordings",
                self.told(limit, tokens),
                limit,
            )
