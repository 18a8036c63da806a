"""What one call of generation comes down to: which tokens may follow, how many, and how they are drawn.

All that decides about the tokens of an answer beside the model itself, so that any engine gives the same ones. What
computes them inside another program, such as our plug-in in vLLM, imports no more than this. `planning` makes plans.
"""
# Shapes: B prompts, S token ids of the padded prompt.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, PretrainedConfig

from audiollm.vocabulary import AudioVocabulary

from .grammar import AudioSegmentLogitsProcessor
from .sampling import RepetitionAwareSampler, SamplingSettings
from .turns import TurnsLogitsProcessor


class ContextError(ValueError):
    """A prompt and its answer are longer than the model's context."""


def context_of(config: PretrainedConfig) -> int | None:
    """The most tokens that a model takes, prompt and answer together; None if its config tells none."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


@dataclass(frozen=True)
class AnswerPlan:
    """The rules of the answers to some prompts.

    Attributes:
        modalities: {"text"}, {"audio"} (one segment) or {"text", "audio"}.
        max_new_tokens: of each answer.
        eos_token_ids: ids that end an answer.
        min_codes: fewest codes of an audio segment; with ``turns``, of all of them.
        max_codes: most of them; None for no limit.
        turns: of each prompt, the ids of the words that each turn writes before it speaks; None: nothing is prescribed.
        sampling: how to draw; None: the most likely token.
        seed: of the draws; None: torch's global state.
    """

    modalities: frozenset[str]
    max_new_tokens: int
    eos_token_ids: tuple[int, ...]
    min_codes: int = 1
    max_codes: int | None = None
    turns: tuple[tuple[tuple[int, ...], ...], ...] | None = None
    sampling: SamplingSettings | None = None
    seed: int | None = None

    def grammar(
        self, vocabulary: AudioVocabulary, num_tokens: int, prompt_length: int, *, check_dead_ends: bool = False
    ) -> AudioSegmentLogitsProcessor | TurnsLogitsProcessor:
        """The logits processor that lets through what may follow.

        Args:
            vocabulary: where the audio tokens lie.
            num_tokens: entries of the text tokenizer.
            prompt_length: S.
            check_dead_ends: as for `AudioSegmentLogitsProcessor`.
        """
        limits: dict[str, Any] = {
            "eos_token_ids": self.eos_token_ids,
            "prompt_length": prompt_length,
            "min_codes": self.min_codes,
            "max_codes": self.max_codes,
            "check_dead_ends": check_dead_ends,
        }
        if self.turns is not None:
            return TurnsLogitsProcessor(vocabulary, self.turns, **limits)
        return AudioSegmentLogitsProcessor(vocabulary, self.modalities, num_tokens=num_tokens, **limits)

    def processors(
        self,
        vocabulary: AudioVocabulary,
        grammar: LogitsProcessor,
        prompt_length: int,
        columns: Callable[[torch.device], Tensor | None] | None = None,
    ) -> list[LogitsProcessor]:
        """The grammar, and behind it, where answers are drawn, what draws: it leaves one token to choose from."""
        if self.sampling is None:
            return [grammar]
        sampler = RepetitionAwareSampler(
            vocabulary, self.sampling, seed=self.seed, prompt_length=prompt_length, columns=columns
        )
        return [grammar, sampler]

    def is_cut(
        self, num_tokens: int, has_ended: bool, codes_of_segments: Sequence[int], *, timed: bool = False
    ) -> bool:
        """Whether a limit ended an answer or one of its segments: an end that the grammar forces is no choice.

        Args:
            num_tokens: of the answer.
            has_ended: it ended by itself.
            codes_of_segments: codes of each audio segment, those included that the prompt holds of an open one.
            timed: it had a limit of time as well.
        """
        lengths = [sum(codes_of_segments)] if self.turns is not None else codes_of_segments
        if self.max_codes is not None and max(lengths, default=0) >= self.max_codes:
            return True
        return not has_ended and (num_tokens >= self.max_new_tokens or timed)
