"""Our rules inside vLLM: ``--logits-processors audiollm.serving.engines.vllm_plugin:AnswerRules``.

Runs in vLLM's processes, with vLLM's versions of torch and transformers; of this package it loads the rules alone. A
request that names none is left to vLLM.
"""
# Shapes: W logits.

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from .rules import TokenRules
from .wire import RULES, rules_from_text

logger = logging.getLogger(__name__)


class AnswerRules(AdapterLogitsProcessor):
    """Leaves of each row of logits the token that the request's rules take, so that no sampling of vLLM decides."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuses rules that cannot be, before the request reaches the model. Raises ValueError."""
        text = _text_of(sampling_params)
        if text is not None:
            rules_from_text(text, [0])

    def is_argmax_invariant(self) -> bool:
        """It decides what the largest logit is."""
        return False

    def new_req_logits_processor(
        self, params: SamplingParams
    ) -> Callable[[list[int], list[int], Tensor], Tensor] | None:
        """What chooses the tokens of a request; None for one without rules."""
        text = _text_of(params)
        if text is None:
            return None
        row = _Row(text)

        # vLLM counts the parameters: with three it gives the prompt too.
        def choose(prompt_ids: list[int], output_ids: list[int], logits: Tensor) -> Tensor:
            return row.choose(prompt_ids, output_ids, logits)

        return choose


class _Row:
    """The rules of one request, as long as vLLM keeps it; begun anew where vLLM computes tokens again."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._rules: TokenRules | None = None
        self._has_failed = False

    def choose(self, prompt_ids: Sequence[int], output_ids: Sequence[int], logits: Tensor) -> Tensor:
        """Logits ``[W]`` with one that is finite."""
        token_id = failure_id(logits.shape[0])
        if not self._has_failed:
            try:
                token_id = self._rules_behind(prompt_ids, output_ids).choose(logits)
            except Exception:  # would end vLLM's engine, and with it the answers of everybody
                logger.exception("the rules of a request failed: its answer is ended")
                self._has_failed = True
        chosen = torch.full_like(logits, -torch.inf)
        chosen[token_id] = 0.0
        return chosen

    def _rules_behind(self, prompt_ids: Sequence[int], output_ids: Sequence[int]) -> TokenRules:
        # A token that was chosen before all of a long prompt was in is thrown away; one that was preempted comes again.
        if self._rules is None or self._rules.num_new_tokens != len(output_ids):
            self._rules = rules_from_text(self._text, prompt_ids, output_ids)
        return self._rules


def failure_id(width: int) -> int:
    """The id that tells of rules that failed: the last row of logits ``[W]``, which belongs to no token."""
    return width - 1


def _text_of(params: Any) -> Any:
    return (params.extra_args or {}).get(RULES)
