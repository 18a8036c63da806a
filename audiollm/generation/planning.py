"""From settings and prompts to the plan of the answers: how many codes and tokens, and what ends them."""
# Shapes: B prompts, S token ids of the padded prompt.

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from transformers import GenerationConfig

from audiollm.processing.processor import AudioLLMProcessor

from .grammar import ends_inside_audio, segment_limits
from .plan import AnswerPlan, ContextError
from .settings import GenerationSettings
from .turns import num_tokens_of_turns

TEXT_TOKENS = 256  # room for text where nothing else is said
AUDIO_TOKENS = 768  # room for audio: 30 s at 25 codes per second, and the marks; of several codebooks, frames
_MARKS = 3  # start of audio, end of audio, end of the answer


def plan_answers(
    settings: GenerationSettings,
    processor: AudioLLMProcessor,
    input_ids: Tensor,
    *,
    generation_config: GenerationConfig,
    context: int | None,
) -> AnswerPlan:
    """Works settings out for prompts.

    Args:
        settings: what was asked for.
        processor: of the Audio-LLM.
        input_ids: prompts padded on the left, int64 ``[B, S]``.
        generation_config: the checkpoint's, for what ends an answer where the settings name nothing.
        context: the most tokens of prompt and answer together; None for no limit.

    Raises:
        ValueError: if settings do not fit each other, or a prompt ends where nothing allowed can follow.
        ContextError: if prompt and answer do not fit the context.
    """
    is_inside = bool(ends_inside_audio(input_ids, processor.vocabulary).any())
    if settings.modalities == {"text"} and is_inside:
        raise ValueError("the prompt ends inside an audio segment, where no text can follow: allow 'audio' too")
    min_codes, max_codes = 1, None
    if (settings.min_seconds, settings.max_seconds) != (None, None):
        min_codes, max_codes = _limits_in_codes(settings, processor)
    turns = _ids_of_turns(settings.turns, processor, len(input_ids), is_inside)
    layout = processor.vocabulary.row_layout
    audio_tokens = AUDIO_TOKENS if layout is None else layout.length(AUDIO_TOKENS)
    length = _answer_length(settings, turns, min_codes, max_codes, input_ids.shape[1], context, is_inside, audio_tokens)
    return AnswerPlan(
        modalities=frozenset(settings.modalities),
        max_new_tokens=length,
        eos_token_ids=tuple(_ids_that_end(settings, processor, generation_config)),
        min_codes=min_codes,
        max_codes=max_codes,
        turns=turns,
        sampling=settings.sampling,
        seed=settings.seed,
    )


def _limits_in_codes(settings: GenerationSettings, processor: AudioLLMProcessor) -> tuple[int, int | None]:
    """The fewest and most codes of a segment; of several codebooks, the symbols of so many whole frames."""
    rate, layout = processor.audio_tokenizer.frame_rate, processor.vocabulary.row_layout
    if layout is None:
        return segment_limits(settings.min_seconds, settings.max_seconds, rate)
    limits = segment_limits(settings.min_seconds, settings.max_seconds, rate / layout.num_codebooks)
    return layout.length(limits[0]), None if limits[1] is None else layout.length(limits[1])


def _ids_that_end(
    settings: GenerationSettings, processor: AudioLLMProcessor, generation_config: GenerationConfig
) -> list[int]:
    """The ids that end an answer: those asked for, or else the checkpoint's, or else the text tokenizer's."""
    asked = settings.transformers.get("eos_token_id")
    for eos in (asked, generation_config.eos_token_id, processor.tokenizer.eos_token_id):
        if eos is not None:
            return [eos] if isinstance(eos, int) else list(eos)
    return []


def _ids_of_turns(
    turns: Sequence[Sequence[str]] | None, processor: AudioLLMProcessor, num_prompts: int, is_inside: bool
) -> tuple[tuple[tuple[int, ...], ...], ...] | None:
    if turns is None:
        return None
    if len(turns) != num_prompts:
        raise ValueError(f"turns for {len(turns)} answers came with {num_prompts} prompts: give each its own")
    if is_inside:
        raise ValueError("the prompt ends inside an audio segment, where no turn can begin: leave out turns")
    return tuple(tuple(tuple(ids) for ids in processor.plain_token_ids(words)) for words in turns)


def _answer_length(
    settings: GenerationSettings,
    turns: Sequence[Sequence[Sequence[int]]] | None,
    min_codes: int,
    max_codes: int | None,
    prompt_length: int,
    context: int | None,
    is_inside: bool,
    audio_tokens: int,
) -> int:
    """The longest answer in tokens: as asked for, or what the limits need and, for audio, as much as there is."""
    room = math.inf if context is None else context - prompt_length
    speaks = "audio" in settings.modalities
    wanted, min_seconds = settings.max_new_tokens, settings.min_seconds
    beside_codes = _MARKS if turns is None else num_tokens_of_turns(turns)
    if wanted is not None:
        needed = wanted
        shortest = min_codes + beside_codes
        if speaks and min_seconds is not None and shortest > wanted and not is_inside:
            raise ValueError(
                f"min_seconds={min_seconds} takes {shortest} tokens, but max_new_tokens={wanted}: raise it, or "
                "leave it out"
            )
    else:
        text_tokens = TEXT_TOKENS if "text" in settings.modalities and turns is None else 0
        needed = text_tokens + ((max_codes or min_codes) + beside_codes if speaks else 0)
        longest = text_tokens + beside_codes - _MARKS + audio_tokens
        wanted = max(needed, longest) if speaks and max_codes is None else needed
    if needed > room:
        shorter = "the recording" if turns is None else "the text that is spoken in turns"
        answer = f"max_new_tokens={needed}" if settings.max_new_tokens is not None else f"the answer may take {needed}"
        raise ContextError(
            f"the prompt has {prompt_length} tokens and {answer}, but the context holds {context}: "
            f"shorten {shorter} or ask for a shorter answer"
        )
    # Only what was asked for, or what the limits need, must fit; audio without a limit takes what room there is.
    return int(min(wanted, room))
