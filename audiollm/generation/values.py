"""Values of generation settings, checked by name before a model runs: transformers takes many wrong ones unseen."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Check = tuple[Callable[[Any], bool], str]


def _is_whole(value: Any, least: float = -math.inf) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))


def _is_text_or_texts(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value
    return isinstance(texts, (list, tuple)) and bool(texts) and all(isinstance(one, str) and one for one in texts)


def _are_turns(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(one, (list, tuple)) and _is_text_or_texts(one) for one in value)
    )


def _are_callable(value: Any) -> bool:
    return isinstance(value, Sequence) and all(callable(one) for one in value)


_WHOLE: Check = (_is_whole, "a whole number")
_POSITIVE_COUNT: Check = (lambda value: _is_whole(value, 1), "a whole number from 1")
_COUNT: Check = (lambda value: _is_whole(value, 0), "a whole number from 0")
_POSITIVE: Check = (lambda value: _is_number(value) and value > 0, "a number above 0")
_NOT_NEGATIVE: Check = (lambda value: _is_number(value) and value >= 0, "a number from 0")
_NUMBER: Check = (_is_number, "a number")
_SWITCH: Check = (_is_bool, "True or False")
_TEXTS: Check = (_is_text_or_texts, "a text or a list of texts, none of them empty")
_FUNCTIONS: Check = (_are_callable, "a list of functions of transformers' kind")

CHECKS: dict[str, Check] = {
    **dict.fromkeys(("max_new_tokens", "num_beams", "num_return_sequences"), _POSITIVE_COUNT),
    **dict.fromkeys(("prompt_lookup_num_tokens", "max_matching_ngram_size", "prefill_chunk_size"), _POSITIVE_COUNT),
    **dict.fromkeys(("min_length", "min_new_tokens", "no_repeat_ngram_size"), _COUNT),
    **dict.fromkeys(("max_time", "repetition_penalty", "max_seconds"), _POSITIVE),
    "min_seconds": _NOT_NEGATIVE,
    **dict.fromkeys(("length_penalty", "guidance_scale", "temperature", "top_p", "repetition_threshold"), _NUMBER),
    **dict.fromkeys(("min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"), _NUMBER),
    **dict.fromkeys(("top_k", "repetition_window"), _WHOLE),
    "seed": (lambda value: _is_whole(value, -(2**63)) and value < 2**64, "a whole number of 64 bits"),
    **dict.fromkeys(("do_sample", "remove_invalid_values", "use_cache", "disable_compile"), _SWITCH),
    "return_waveforms": _SWITCH,
    "turns": (_are_turns, "a list of words for each prompt, none of them empty: [turns_of(text), …]"),
    "early_stopping": (lambda value: _is_bool(value) or value == "never", "True, False or 'never'"),
    "stop_strings": _TEXTS,
    "exponential_decay_length_penalty": (
        lambda value: (
            isinstance(value, (list, tuple)) and [_is_whole(value[0], 0), *map(_is_number, value)] == [True] * 3
        ),
        "a pair: from which token on, and a factor",
    ),
    **dict.fromkeys(("logits_processor", "stopping_criteria"), _FUNCTIONS),
    "prefix_allowed_tokens_fn": (callable, "a function"),
    "streamer": (lambda value: hasattr(value, "put") and hasattr(value, "end"), "a streamer of transformers' kind"),
}
"""Settings whose value can be judged alone: what a value must be."""

TOKEN_IDS = (
    *("eos_token_id", "pad_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"),
    "bad_words_ids",
)
"""Settings that hold ids of tokens."""


def check_values(settings: Mapping[str, Any]) -> None:
    """Refuses values that a setting cannot have; None is none.

    Raises:
        ValueError: naming the setting, its value and what to use.
    """
    for name, value in settings.items():
        if value is not None and name in CHECKS:
            is_right, wanted = CHECKS[name]
            if not is_right(value):
                raise ValueError(f"{name}={value!r}: use {wanted}")
    least, most = settings.get("min_new_tokens"), settings.get("max_new_tokens")
    if least is not None and most is not None and least > most:
        raise ValueError(f"min_new_tokens={least} is more than max_new_tokens={most}")


def check_token_ids(settings: Mapping[str, Any], vocab_size: int) -> None:
    """Refuses ids of tokens that a model does not have.

    Raises:
        ValueError: naming the setting and the id.
    """
    for name in TOKEN_IDS:
        value = settings.get(name)
        if value is None:
            continue
        ids = list(_flat(value))
        if not ids:
            raise ValueError(f"{name}={value!r}: use at least one id of a token, or leave it out")
        for token_id in ids:
            if not _is_whole(token_id, 0) or token_id >= vocab_size:
                raise ValueError(f"{name}={value!r}: use ids of tokens, whole numbers from 0 to {vocab_size - 1}")


def _flat(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _flat(one)
    else:
        yield value
