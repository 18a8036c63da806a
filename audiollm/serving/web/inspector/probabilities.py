"""Prompt and answer token by token: how likely the model held each one, and what it would have said instead."""
# Shapes: S token ids, W words of the vocabulary, K alternatives.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from audiollm.processing.processor import AudioLLMProcessor

MOST_TOKENS = 4096
_TOKENS_AT_ONCE = 128  # a row of logits of a large vocabulary takes more than half a megabyte


@dataclass(frozen=True)
class TokenChance:
    """One token, as the model saw it coming."""

    token_id: int
    text: str
    """The token as text; an audio token by its name."""
    code: int | None
    """The audio code; None for a text token."""
    is_answer: bool
    probability: float | None
    """Given all tokens before it; None for the first one, before which there is nothing."""
    alternatives: list[tuple[str, float]]
    """The likeliest tokens in its place with their probabilities, likeliest first."""


def token_chances(
    model: PreTrainedModel,
    processor: AudioLLMProcessor,
    prompt_ids: Sequence[int],
    answer_ids: Sequence[int],
    *,
    num_alternatives: int = 5,
) -> list[TokenChance]:
    """One pass of the model over prompt and answer.

    Args:
        model: the causal LM.
        processor: knows its tokens.
        prompt_ids: of what was asked.
        answer_ids: of what was answered.
        num_alternatives: K.

    Raises:
        ValueError: if there are too many tokens.
    """
    ids = [*prompt_ids, *answer_ids]
    if len(ids) > MOST_TOKENS:
        raise ValueError(f"prompt and answer have {len(ids)} tokens, but {MOST_TOKENS} are looked at: shorten them")
    chances, best, best_ids = _chances(model, torch.tensor([ids]), num_alternatives)
    rows = []
    for place, token_id in enumerate(ids):
        before = place - 1
        alternatives = []
        if before >= 0:
            alternatives = [
                (_text(processor, other), chance)
                for other, chance in zip(best_ids[before].tolist(), best[before].tolist(), strict=True)
            ]
        rows.append(
            TokenChance(
                token_id=token_id,
                text=_text(processor, token_id),
                code=_code(processor, token_id),
                is_answer=place >= len(prompt_ids),
                probability=float(chances[before]) if before >= 0 else None,
                alternatives=alternatives,
            )
        )
    return rows


@torch.no_grad()
def _chances(model: PreTrainedModel, ids_1S: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities of the next token: of the one that follows ``[S - 1]``, and of the likeliest ``[S - 1, K]``."""
    ids_1S = ids_1S.to(model.device)
    cache, found, best, best_ids = None, [], [], []
    for start in range(0, ids_1S.shape[1] - 1, _TOKENS_AT_ONCE):
        end = min(start + _TOKENS_AT_ONCE, ids_1S.shape[1] - 1)
        output = model(input_ids=ids_1S[:, start:end], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        chances_SW = output.logits[0].float().softmax(dim=-1)
        found.append(chances_SW.gather(1, ids_1S[0, start + 1 : end + 1, None])[:, 0])
        top = chances_SW.topk(min(count, chances_SW.shape[1]))
        best.append(top.values)
        best_ids.append(top.indices)
    if not found:
        return torch.zeros(0), torch.zeros(0, count), torch.zeros(0, count, dtype=torch.long)
    return torch.cat(found).cpu(), torch.cat(best).cpu(), torch.cat(best_ids).cpu()


def _code(processor: AudioLLMProcessor, token_id: int) -> int | None:
    code = token_id - processor.vocabulary.first_code_id
    return code if 0 <= code < processor.vocabulary.codebook_size else None


def _text(processor: AudioLLMProcessor, token_id: int) -> str:
    return processor.decode([token_id], skip_special_tokens=False)
