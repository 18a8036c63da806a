"""Sampling that does not get stuck in a sound: transformers' warpers, and codes that repeat are drawn again.

A logits processor for transformers' ``generate``, as the grammar is; it comes last, for it decides.
"""
# Shapes: B rows, S token ids so far, W logits (at least as many as tokens), C of them finite, K window of recent ids.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from audiollm.vocabulary import AudioVocabulary


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is drawn.

    Attributes:
        temperature: divides the logits; below 1 sharpens.
        top_k: draw among this many tokens; 0 for all.
        top_p: draw among the most likely tokens that hold this share of the probability.
        repetition_window: how many of the last codes are looked at; 0 switches repetition-aware sampling off.
        repetition_threshold: share of the window that a code may fill before it is drawn again.
        min_p: draw among tokens at least this share as likely as the likeliest; the next four narrow down like it.
        top_h: keep the entropy of what is drawn from below this share.
        typical_p: share of the probability, of the tokens closest to the expected information.
        epsilon_cutoff: least probability.
        eta_cutoff: the same, less where the distribution is flat.

    Raises:
        ValueError: if one is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 25
    top_p: float = 0.8
    repetition_window: int = 10
    repetition_threshold: float = 0.1
    min_p: float | None = None
    top_h: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: use a positive value, or do_sample=False for greedy")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"top_k={self.top_k}, top_p={self.top_p}: use top_k >= 0 and 0 < top_p <= 1")
        if self.repetition_window < 0 or not 0 <= self.repetition_threshold <= 1:
            raise ValueError(
                f"repetition_window={self.repetition_window}, repetition_threshold={self.repetition_threshold}: use a "
                "window of 0 or more codes and a threshold between 0 and 1"
            )
        self.warpers(torch.device("cpu"))  # they check their own

    def warpers(self, device: torch.device) -> LogitsProcessorList:
        """What narrows the distribution down, in the order of transformers."""
        warpers = LogitsProcessorList()
        if self.temperature != 1.0:
            warpers.append(TemperatureLogitsWarper(self.temperature))
        if self.top_h is not None:
            warpers.append(TopHLogitsWarper(self.top_h))
        if self.top_k:
            warpers.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1.0:
            warpers.append(TopPLogitsWarper(self.top_p))
        if self.min_p is not None:
            warpers.append(MinPLogitsWarper(self.min_p))
        if self.typical_p is not None and self.typical_p < 1.0:
            warpers.append(TypicalLogitsWarper(self.typical_p))
        if self.epsilon_cutoff:
            warpers.append(EpsilonLogitsWarper(self.epsilon_cutoff))
        if self.eta_cutoff:
            warpers.append(EtaLogitsWarper(self.eta_cutoff, device=device))
        return warpers


class RepetitionAwareSampler(LogitsProcessor):
    """Draws the next token itself, with its own random generator.

    A token is drawn after temperature, top-k, top-p and their like. If it is a code that fills at least
    ``repetition_threshold`` of the last ``repetition_window`` ids, it is drawn again from the whole distribution that
    the grammar allows (VALL-E 2, Chen et al., 2024, arXiv:2406.05370; window and threshold as in CosyVoice 2, Du et
    al., 2024, arXiv:2412.10117).
    Without this, codes of silence or a held vowel feed on themselves.

    The result is one-hot in logits, so ``generate(do_sample=False)`` takes the drawn token: put it last in the list.

    Args:
        vocabulary: where the codes lie.
        settings: how to draw.
        seed: of the generator; None draws from torch's global one.
        prompt_length: ids of the (padded) prompt, which are no part of the window.
        columns: gives the ids that hold all finite logits of the next step, where they are known; others are then not
            looked at. What is drawn does not depend on it.
    """

    def __init__(
        self,
        vocabulary: AudioVocabulary,
        settings: SamplingSettings,
        *,
        seed: int | None = None,
        prompt_length: int = 0,
        columns: Callable[[torch.device], Tensor | None] | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.settings = settings
        self.seed = seed
        self.prompt_length = prompt_length
        self._columns = columns
        self._generator: torch.Generator | None = None  # made at the first draw, when the device is known
        self._warpers: LogitsProcessorList | None = None  # likewise

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leaves one finite logit per row of ``scores [B, W]``: that of the drawn token."""
        if self._warpers is None:
            self._warpers = self.settings.warpers(scores.device)
        ids_C = None if self._columns is None else self._columns(scores.device)
        if ids_C is not None and 2 * len(ids_C) > scores.shape[1]:
            ids_C = None  # it would be more work to pick them out
        # Sorting 160,000 logits for top-p, of which 8,193 are finite, would take as long as reading a small LLM.
        finite_BC = scores if ids_C is None else scores[:, ids_C]
        narrowed_BC = finite_BC
        for warper in self._warpers:  # the list itself would look up what each of them takes, at every token
            narrowed_BC = warper(input_ids, narrowed_BC)
        drawn_B = self._draw(narrowed_BC, ids_C)
        window = self.settings.repetition_window
        if window:
            # Always drawn, so that the numbers a row gets do not depend on what the other rows do. Not from the top-k,
            # where a code that repeats would win once more, but from all that may follow.
            again_B = self._draw(finite_BC, ids_C)
            # Of several codebooks the window holds as many codes of each: whole frames.
            layout = self.vocabulary.row_layout
            num_recent = window * (1 if layout is None else layout.num_codebooks)
            recent_BK = input_ids[:, max(self.prompt_length, input_ids.shape[1] - num_recent) :]
            num_repeats_B = (recent_BK == drawn_B[:, None]).sum(dim=1)
            # At least one: a threshold of 0 must not draw again what has not been said.
            too_often_B = num_repeats_B >= max(1.0, self.settings.repetition_threshold * window)
            drawn_B = torch.where(self.vocabulary.is_code(drawn_B) & too_often_B, again_B, drawn_B)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn_B[:, None], 0.0)

    def skip(self, num_tokens: int, device: torch.device) -> None:
        """Leaves out the numbers of the first tokens of one answer, for an answer that goes on behind them.

        Args:
            num_tokens: how many.
            device: that of the logits.
        """
        if self.seed is None or not num_tokens:
            return
        self._generator = torch.Generator(device).manual_seed(self.seed)
        for _ in range(num_tokens * (2 if self.settings.repetition_window else 1)):
            torch.rand(1, 1, generator=self._generator, device=device)

    def _draw(self, scores_BC: Tensor, ids_C: Tensor | None) -> Tensor:
        """Draws an id per row: where one number falls in the summed probabilities.

        torch.multinomial takes a number for each of 160,000 logits, which costs as much as a third of a small LLM.
        """
        if self.seed is not None and self._generator is None:
            self._generator = torch.Generator(scores_BC.device).manual_seed(self.seed)
        # float32: in bf16 the probabilities of 160,000 tokens do not sum to one.
        summed_BC = scores_BC.float().softmax(dim=-1).cumsum(dim=-1)
        total_B1 = summed_BC[:, -1:]
        if bool(total_B1.isnan().any()):
            raise ValueError("the logits hold NaN or infinity, or allow no token: nothing can be drawn from them")
        number_B1 = torch.rand(len(summed_BC), 1, generator=self._generator, device=summed_BC.device)
        # Numbers are below 1, so that one is never beyond the last token that may follow.
        drawn_B = torch.searchsorted(summed_BC / total_B1, number_B1, right=True)[:, 0]
        return drawn_B if ids_C is None else ids_C[drawn_B]
