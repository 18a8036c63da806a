"""What of transformers' generation settings is passed on: each has an effect here, or is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers import GenerationConfig

from audiollm.loading import AUDIO_SAMPLING, SPEAKS_IN_TURNS, SPOKEN_CHARACTERS

from .sampling import SamplingSettings
from .values import check_values

PASSED_ON = frozenset(
    (
        *("num_beams", "length_penalty", "early_stopping", "num_return_sequences"),
        *("min_length", "min_new_tokens", "max_time", "stop_strings", "eos_token_id", "pad_token_id"),
        *("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens"),
        *("sequence_bias", "exponential_decay_length_penalty", "forced_eos_token_id", "guidance_scale"),
        *("remove_invalid_values", "prompt_lookup_num_tokens", "max_matching_ngram_size"),
        *("use_cache", "cache_implementation", "cache_config", "compile_config", "disable_compile"),
        "prefill_chunk_size",
    )
)
"""Settings that transformers obeys as they are."""

OBJECTS = frozenset(
    (
        *(
            "logits_processor",
            "stopping_criteria",
            "prefix_allowed_tokens_fn",
            "assistant_model",
            "assistant_tokenizer",
        ),
        *("target_tokenizer", "negative_prompt_ids", "negative_prompt_attention_mask", "synced_gpus", "tokenizer"),
    )
)
"""Further arguments of transformers' ``generate`` that have an effect here."""

_NEEDS = {
    "length_penalty": ("num_beams", "has an effect in beam search only"),
    "early_stopping": ("num_beams", "has an effect in beam search only"),
    "max_matching_ngram_size": ("prompt_lookup_num_tokens", "belongs to prompt lookup"),
    "tokenizer": ("stop_strings", "serves to find them"),
    "cache_config": ("cache_implementation", "belongs to one"),
    "negative_prompt_ids": ("guidance_scale", "belongs to classifier-free guidance"),
    "negative_prompt_attention_mask": ("guidance_scale", "belongs to classifier-free guidance"),
}
"""Settings that have an effect beside another one only: which, and why."""

_ENCODER = "is for models with an encoder; an Audio-LLM has none"
_SCORES = "asks for what the result does not hold; call generate() of the model inside (.model) for it"
REFUSED = {
    "max_length": "counts the prompt too: give max_new_tokens",
    "max_cache_len": "follows from prompt and max_new_tokens",
    "bos_token_id": "has no effect behind a prompt",
    "forced_bos_token_id": _ENCODER,
    "decoder_start_token_id": _ENCODER,
    "encoder_repetition_penalty": _ENCODER,
    "encoder_no_repeat_ngram_size": _ENCODER,
    "output_attentions": _SCORES,
    "output_hidden_states": _SCORES,
    "output_scores": _SCORES,
    "output_logits": _SCORES,
    "return_dict_in_generate": _SCORES,
    "renormalize_logits": "changes scores only, which the result does not hold",
    "watermarking_config": "would act behind the grammar of text and audio, which has chosen by then",
    "token_healing": "would change the prompt, and with it the audio in it",
    "custom_generate": "would run code from elsewhere in place of this generation",
    "trust_remote_code": "would run code from elsewhere",
    "use_model_defaults": "has no effect: what is left open is ours to set",
}
"""Settings without an effect, or with one that the grammar of an answer forbids: why."""

_OF_OTHERS = {
    "inputs": "is called input_ids here",
    "return_audio": "is of other models: modalities={'audio'} asks for sound",
    "speaker": "is of other models: decoding=DecodingSettings(…) says whose voice it is",
    "spk": "is of other models: decoding=DecodingSettings(…) says whose voice it is",
    "return_timestamps": "is of Whisper: audiollm.transcription gives times",
    "chunk_length_s": "is of Whisper: audiollm.transcription takes recordings of any length",
    "stride_length_s": "is of Whisper: audiollm.transcription takes recordings of any length",
    "language": "is of Whisper: say it in the question",
    "task": "is of Whisper: say it in the question",
    "return_full_text": "has no effect: answers come without the prompt",
}
"""Settings that other models of transformers have: what stands for them here."""

_MAY_FORBID = (
    *("min_length", "min_new_tokens", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens"),
    *("begin_suppress_tokens", "sequence_bias", "forced_eos_token_id", "logits_processor", "prefix_allowed_tokens_fn"),
)


# What counts as not set in a checkpoint: transformers' own defaults, and what older versions of it wrote.
_OF_CHECKPOINT: dict[str, tuple[Any, ...]] = {
    "do_sample": (False,),
    "temperature": (1.0,),
    "top_k": (50, 0),
    "top_p": (1.0,),
    "min_p": (0.0,),
    "top_h": (),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "repetition_penalty": (1.0,),
    "num_beams": (1,),
    "max_new_tokens": (),
    "max_length": (20,),
}
"""Settings that answers do not take from a checkpoint's ``generation_config.json``, each with what changes nothing."""


def ignored_of_checkpoint(stored: GenerationConfig) -> dict[str, Any]:
    """The settings of a checkpoint that have no effect on answers; they can be passed to ``generate``."""
    values = {name: getattr(stored, name, None) for name in _OF_CHECKPOINT}
    return {name: one for name, one in values.items() if one is not None and one not in _OF_CHECKPOINT[name]}


def audio_sampling_of_checkpoint(stored: GenerationConfig) -> dict[str, Any]:
    """How a checkpoint wants audio drawn: ``audio_sampling`` in its ``generation_config.json``.

    The file's own ``temperature`` and the like were chosen for text, mostly before there was audio in the vocabulary.

    Returns:
        Settings of `SamplingSettings`, those that it names.

    Raises:
        ValueError: for one that is unknown or out of range.
    """
    given = getattr(stored, AUDIO_SAMPLING, None)
    if given is None:
        return {}
    known = [one.name for one in fields(SamplingSettings)]
    if not isinstance(given, Mapping) or not set(given) <= set(known):
        raise ValueError(f"{AUDIO_SAMPLING}={given!r} in generation_config.json: use some of {', '.join(known)}")
    try:
        check_values(given)
        SamplingSettings(**given)
    except ValueError as error:
        raise ValueError(f"{AUDIO_SAMPLING} in generation_config.json: {error}") from error
    return dict(given)


def speaks_in_turns(stored: GenerationConfig) -> bool:
    """Whether a checkpoint writes and speaks word by word: ``speaks_in_turns`` in its ``generation_config.json``.

    Raises:
        ValueError: if it is neither true nor false.
    """
    given = getattr(stored, SPEAKS_IN_TURNS, None)
    if given is not None and not isinstance(given, bool):
        raise ValueError(f"{SPEAKS_IN_TURNS}={given!r} in generation_config.json: use true or false")
    return bool(given)


def spoken_characters(stored: GenerationConfig) -> frozenset[str] | None:
    """The letters and digits, in small, that a checkpoint learned to say; None where it does not tell: any.

    Raises:
        ValueError: if ``spoken_characters`` in its ``generation_config.json`` is no text, or an empty one.
    """
    given = getattr(stored, SPOKEN_CHARACTERS, None)
    if given is None:
        return None
    if not isinstance(given, str) or not given:
        raise ValueError(f"{SPOKEN_CHARACTERS}={given!r} in generation_config.json: use a text of letters and digits")
    return frozenset(given.casefold())


def with_generation_config(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Puts the settings of a ``generation_config`` among the arguments; one that is given itself counts before it.

    Raises:
        ValueError: if it is no ``GenerationConfig``.
    """
    arguments = dict(arguments)
    config = arguments.pop("generation_config", None)
    if config is None:
        return arguments
    if not isinstance(config, GenerationConfig):
        raise ValueError(
            f"generation_config is {type(config).__name__}: give a transformers.GenerationConfig, or its settings as "
            "arguments"
        )
    # What follows from the checkpoint is in there too where it was copied from one.
    follows = {"transformers_version", "bos_token_id", AUDIO_SAMPLING, SPEAKS_IN_TURNS, SPOKEN_CHARACTERS}
    stated = {
        name: value
        for name, value in vars(config).items()
        # Those with a line in front are transformers' notes, such as those of a config that has generated.
        if value is not None and name not in follows and not name.startswith("_")
    }
    return stated | {name: value for name, value in arguments.items() if name not in stated or value is not None}


def check_passed_on(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that are given and have an effect.

    Args:
        options: arguments of transformers' ``generate`` that are none of ours.

    Raises:
        ValueError: naming the first one that is refused, and why.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name in _OF_OTHERS and value is not False:
            raise ValueError(f"{name} {_OF_OTHERS[name]}")
        if name in REFUSED:
            if value is False:
                continue  # switched off, as it is
            raise ValueError(f"{name} {REFUSED[name]}")
        if name in _NEEDS:
            needed, why = _NEEDS[name]
            if given.get(needed) in (None, 1):
                raise ValueError(f"{name} {why}: give {needed} too, or leave it out")
        if name in vars(GenerationConfig()) and name not in PASSED_ON:
            raise ValueError(f"{name} is not supported here: leave it out")
        if name not in PASSED_ON | OBJECTS | _OF_OTHERS.keys():  # a model takes what it ignores, such as labels
            raise ValueError(f"{name} is no setting of generation here: leave it out")
    beams = given.get("num_beams", 1)
    for name in ("prompt_lookup_num_tokens", "assistant_model"):
        if name in given and beams != 1:
            raise ValueError(f"{name} is ignored in beam search: leave out num_beams={beams}, or {name}")
    return {name: value for name, value in given.items() if name not in REFUSED and name not in _OF_OTHERS}


def may_forbid_everything(options: Mapping[str, Any]) -> bool:
    """Whether settings forbid tokens, so that together with the grammar none may be left."""
    return any(options.get(name) is not None for name in _MAY_FORBID)
