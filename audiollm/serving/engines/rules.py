"""The rules of one answer, applied token by token to the logits that an engine computes."""
# Shapes: S token ids of the prompt, W logits.

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audiollm.generation.narrow_head import Columns, NextColumns
from audiollm.generation.plan import AnswerPlan
from audiollm.generation.sampling import RepetitionAwareSampler
from audiollm.vocabulary import AudioVocabulary


class TokenRules:
    """Chooses the tokens of one answer; remembers them, so that an engine shows it logits alone.

    Args:
        plan: what the answer may consist of, and how it is drawn; for one prompt.
        vocabulary: where the audio tokens lie.
        num_tokens: entries of the text tokenizer.
        prompt_ids: of the prompt, S of them.
        answer_ids: what there is of the answer already, for an engine that begins anew with an answer; its draws go on
            where they were.

    Raises:
        ValueError: if the plan contradicts itself.
    """

    def __init__(
        self,
        plan: AnswerPlan,
        vocabulary: AudioVocabulary,
        num_tokens: int,
        prompt_ids: Sequence[int],
        answer_ids: Sequence[int] = (),
    ) -> None:
        self._eos = frozenset(plan.eos_token_ids)
        self._max_new_tokens = plan.max_new_tokens
        self._prompt_length = len(prompt_ids)
        # Memory for all of the answer: joining ids anew for each token would copy the square of them.
        self._ids = torch.zeros(1, len(prompt_ids) + plan.max_new_tokens, dtype=torch.long)
        known = [*prompt_ids, *answer_ids]
        self._ids[0, : len(known)] = torch.tensor(known, dtype=torch.long)
        self._seen = self._ids[:, : len(known)]
        self._grammar = plan.grammar(vocabulary, num_tokens, len(prompt_ids))
        self._following = NextColumns(self._grammar)
        self._looked_at: Tensor | None = None
        self._processors = plan.processors(vocabulary, self._grammar, len(prompt_ids), self._ids_that_may_follow)
        self._num_to_skip = len(answer_ids)

    @property
    def num_new_tokens(self) -> int:
        """How many tokens the answer has."""
        return self._seen.shape[1] - self._prompt_length

    @property
    def is_over(self) -> bool:
        """Whether the answer has ended, by itself or because it is as long as it may get."""
        num_new = self.num_new_tokens
        return num_new > 0 and (num_new >= self._max_new_tokens or int(self._seen[0, -1]) in self._eos)

    def columns(self) -> Columns | None:
        """What may follow; None: nearly anything."""
        if self._looked_at is not self._seen:
            self._following.look(self._seen)
            self._looked_at = self._seen
        return self._following.columns

    def choose(self, logits: Tensor) -> int:
        """Takes the next token, given the logits ``[W]`` of all; those that may not follow can be anything.

        Raises:
            ValueError: if the logits hold NaN or infinity where something is drawn from them.
        """
        if self._ids.device != logits.device:
            self._ids = self._ids.to(logits.device)
            self._seen = self._ids[:, : self._seen.shape[1]]
        self._skip(logits.device)
        scores = logits[None]
        for processor in self._processors:
            scores = processor(self._seen, scores)
        token_id = int(scores[0].argmax())
        self._take(token_id)
        return token_id

    def _skip(self, device: torch.device) -> None:
        for processor in self._processors:
            if isinstance(processor, RepetitionAwareSampler):
                processor.skip(self._num_to_skip, device)
        self._num_to_skip = 0

    def _take(self, token_id: int) -> None:
        length = self._seen.shape[1]
        self._ids[0, length] = token_id
        self._seen = self._ids[:, : length + 1]

    def _ids_that_may_follow(self, device: torch.device) -> Tensor | None:
        self.columns()
        return self._following.ids(device)
