"""The rules of an answer as a text, to go with a request to a server that keeps to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from audiollm.generation.grammar import check_modalities
from audiollm.generation.plan import AnswerPlan
from audiollm.generation.sampling import SamplingSettings
from audiollm.vocabulary import AudioVocabulary

from .rules import TokenRules

RULES = "audiollm"
"""The name of the argument (in vLLM's ``vllm_xargs``) that holds the text."""

_FORMAT = 1


def rules_as_text(plan: AnswerPlan, vocabulary: AudioVocabulary, num_tokens: int) -> str:
    """What `rules_from_text` reads.

    Args:
        plan: for one prompt.
        vocabulary: where the audio tokens lie.
        num_tokens: entries of the text tokenizer.
    """
    stated = {**asdict(plan), "modalities": sorted(plan.modalities)}
    return json.dumps({"format": _FORMAT, "plan": stated, "vocabulary": vocabulary.to_dict(), "num_tokens": num_tokens})


def rules_from_text(text: object, prompt_ids: Sequence[int], answer_ids: Sequence[int] = ()) -> TokenRules:
    """The rules of an answer behind a prompt.

    Args:
        text: by `rules_as_text`.
        prompt_ids: of the prompt.
        answer_ids: what there is of the answer already.

    Raises:
        ValueError: if it is no such text, or says what cannot be.
    """
    try:
        stated: dict[str, Any] = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        stated = {}
    if not isinstance(stated, dict) or stated.get("format") != _FORMAT:
        raise ValueError(
            f"{RULES}={str(text)[:100]!r} holds no rules of an answer (format {_FORMAT}): both sides need the same "
            "version of the package audiollm"
        )
    try:
        plan, vocabulary = _plan(stated["plan"]), AudioVocabulary.from_dict(stated["vocabulary"])
        return TokenRules(plan, vocabulary, stated["num_tokens"], prompt_ids, answer_ids)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{RULES} holds rules that cannot be: {type(error).__name__}: {error}") from error


def _plan(stated: dict[str, Any]) -> AnswerPlan:
    unknown = stated.keys() - {one.name for one in fields(AnswerPlan)}
    if unknown:
        raise ValueError(f"{min(unknown)} is no rule")
    turns, sampling = stated["turns"], stated["sampling"]
    return AnswerPlan(
        **{
            **stated,
            "modalities": check_modalities(stated["modalities"]),
            "eos_token_ids": tuple(stated["eos_token_ids"]),
            "turns": None if turns is None else tuple(tuple(tuple(ids) for ids in words) for words in turns),
            "sampling": None if sampling is None else SamplingSettings(**sampling),
        }
    )
