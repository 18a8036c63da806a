"""One call of transformers' ``generate``: checked and made ready before it runs, its ids taken apart afterwards."""
# Shapes: B prompts, S token ids of the padded prompt, T codes of one segment.

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from audiollm.chat.segments import AudioSegment
from audiollm.processing.processor import AudioLLMProcessor

from .cache import roomy_cache
from .grammar import AudioSegmentLogitsProcessor, check_modalities, ends_inside_audio, segment_limits
from .narrow_head import NextColumns, can_narrow, narrowed
from .passed_on import check_passed_on, may_forbid_everything, with_generation_config
from .result import GenerationResult
from .sampling import RepetitionAwareSampler, SamplingSettings
from .turns import TurnsLogitsProcessor, num_tokens_of_turns
from .values import check_token_ids, check_values

TEXT_TOKENS = 256  # room for text where nothing else is said
AUDIO_TOKENS = 768  # room for audio: 30 s at 25 codes per second, and the marks
Function = TypeVar("Function", bound=Callable[..., Any])
_MARKS = 3  # start of audio, end of audio, end of the answer


_LOOKS_AT_LOGITS = frozenset(
    (
        *("num_beams", "assistant_model", "prompt_lookup_num_tokens", "guidance_scale", "logits_processor"),
        *("prefix_allowed_tokens_fn", "stopping_criteria", "sequence_bias", "remove_invalid_values"),
        *("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens"),
        *("min_length", "min_new_tokens", "exponential_decay_length_penalty", "forced_eos_token_id", "synced_gpus"),
        *("cache_implementation", "cache_config", "compile_config", "prefill_chunk_size"),
    )
)
"""Settings beside which all logits are computed, and transformers' own cache is kept."""

_SWITCHED_OFF = {"num_beams": 1, "guidance_scale": 1, "repetition_penalty": 1}
"""The values of some of them that change nothing; all are off where they are empty."""


_WRITTEN_OUT = {
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "num_beams": 1,
}
"""Settings of ours, for what is left open is taken from the checkpoint's own."""


class ContextError(ValueError):
    """A prompt and its answer are longer than the model's context."""


# The fields of `SamplingSettings`, each None where it is not given: with them one tells whether to draw at all.
_SamplingOptions: Any = make_dataclass(
    "_SamplingOptions", [(one.name, Any, None) for one in fields(SamplingSettings)], frozen=True, kw_only=True
)


@dataclass(frozen=True, kw_only=True)
class GenerationSettings(_SamplingOptions):
    """What may be generated, how much of it, and how it is drawn: these, and each setting of `SamplingSettings`.

    Attributes:
        modalities: {"text"}, {"audio"} (one segment) or {"text", "audio"}.
        max_new_tokens: longest answer; None: 256 for text, and room for ``max_seconds`` (30 s if not given) of audio.
        min_seconds: shortest audio segment; with ``turns``, shortest sound of all of them.
        max_seconds: longest audio segment; with ``turns``, longest sound of all of them.
        turns: what each answer says, as the words of its turns (`audiollm.generation.turns.turns_of` makes them of a
            text): each is written, then spoken. For {"text", "audio"}, and a model that was trained on such answers.
        do_sample: draw, or take the most likely token; None: draw for audio, and if it is said how.
        seed: of the draws; None: torch's global state.
        transformers: what is passed on to transformers' ``generate``, see `passed_on`.

    Raises:
        ValueError: if settings contradict each other, or one would have no effect.
    """

    modalities: Collection[str] = ("text",)
    max_new_tokens: int | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    turns: Sequence[Sequence[str]] | None = None
    do_sample: bool | None = None
    seed: int | None = None
    transformers: Mapping[str, Any] = field(default_factory=dict)
    sampling: SamplingSettings | None = field(init=False)
    """How to draw; None for greedy."""

    def __post_init__(self) -> None:
        check_values({**self.transformers, **{one.name: getattr(self, one.name) for one in fields(self) if one.init}})
        object.__setattr__(self, "modalities", check_modalities(self.modalities))
        object.__setattr__(self, "sampling", self._sampling())
        object.__setattr__(self, "transformers", check_passed_on(self.transformers))
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: use 1 or more")
        if self.modalities == {"text"} and (self.min_seconds, self.max_seconds) != (None, None):
            raise ValueError("min_seconds and max_seconds are of audio: allow 'audio' among the modalities too")
        if self.turns is not None and self.modalities != {"text", "audio"}:
            raise ValueError("turns write and speak: use modalities={'text', 'audio'} with them")
        shortest = [name for name in ("min_length", "min_new_tokens") if name in self.transformers]
        if self.seed is not None and self.sampling is None and self.modalities == {"text"}:
            raise ValueError(
                f"seed={self.seed} has no effect, for nothing is drawn: pass do_sample=True, or leave it out"
            )
        if "audio" in self.modalities and shortest:
            raise ValueError(f"{shortest[0]} would keep audio from ending where its segment has: give min_seconds")

    def with_audio_sampling(self, defaults: Mapping[str, Any]) -> GenerationSettings:
        """The same with a checkpoint's own settings for drawing audio where none is given.

        Args:
            defaults: fields of `SamplingSettings`.
        """
        if "audio" not in self.modalities or self.do_sample is False:
            return self
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> GenerationSettings:
        """Sorts the arguments of ``generate``: ours, those of transformers, and those in a ``generation_config``."""
        arguments = with_generation_config(arguments)
        ours = {one.name for one in fields(cls) if one.init} - {"transformers"}
        settings = {name: value for name, value in arguments.items() if name in ours}
        rest = {name: value for name, value in arguments.items() if name not in ours}
        return cls(**settings, transformers=rest)

    def _sampling(self) -> SamplingSettings | None:
        names = [one.name for one in fields(SamplingSettings)]
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        # Greedy codes fall into a loop of silence or of one held sound; greedy text is what evaluation wants.
        do_sample = self.do_sample if self.do_sample is not None else bool(given) or "audio" in self.modalities
        if not do_sample and given:
            raise ValueError(f"do_sample=False takes the most likely token, so leave out {', '.join(given)}")
        return SamplingSettings(**given) if do_sample else None


def takes_settings(function: Function) -> Function:
    """Shows the settings in the signature of a function that takes them as keyword arguments of any name."""
    signature = inspect.signature(function)
    *own, others = signature.parameters.values()
    settings = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type)
        for one in fields(GenerationSettings)
        if one.init and one.name != "transformers"
    ]
    function.__signature__ = signature.replace(parameters=[*own, *settings, others])  # type: ignore[attr-defined]
    return function


class GenerationRequest:
    """A checked call of ``generate``.

    Args:
        model: the causal LM.
        processor: its processor.
        input_ids: prompts padded on the left, int64 ``[B, S]``.
        attention_mask: 1 for real tokens, ``[B, S]``; None if all are.
        settings: what may be generated, how much, and how it is drawn.

    Raises:
        ValueError: if settings do not fit each other, or the prompt ends where nothing allowed can follow.
        ContextError: if prompt and answer do not fit the context.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: AudioLLMProcessor,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        settings: GenerationSettings,
    ) -> None:
        self._model = model
        self._processor = processor
        self.modalities = settings.modalities
        self.num_prompts = input_ids.shape[0]
        options = dict(settings.transformers)
        check_token_ids(options, model.config.get_text_config().vocab_size)
        sampling = settings.sampling
        num_answers = options.get("num_return_sequences", 1)
        if sampling is not None:  # to transformers the search is greedy, which gives one answer per row
            options.pop("num_return_sequences", None)
            input_ids = input_ids.repeat_interleave(num_answers, dim=0)
            attention_mask = None if attention_mask is None else attention_mask.repeat_interleave(num_answers, dim=0)
        self.num_answers = self.num_prompts * num_answers
        self._input_ids = input_ids.to(model.device)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        self._attention_mask = mask.to(model.device)
        self._is_inside = ends_inside_audio(input_ids, processor.vocabulary)
        if self.modalities == {"text"} and bool(self._is_inside.any()):
            raise ValueError("the prompt ends inside an audio segment, where no text can follow: allow 'audio' too")
        min_codes, max_codes = 1, None
        if (settings.min_seconds, settings.max_seconds) != (None, None):
            frame_rate = processor.audio_tokenizer.frame_rate
            min_codes, max_codes = segment_limits(settings.min_seconds, settings.max_seconds, frame_rate)
        self._max_codes = max_codes
        self._turns = self._ids_of_turns(settings.turns)
        self._eos_token_ids = self._ids_that_end(options.pop("eos_token_id", None))
        self._max_new_tokens = self._answer_length(settings, min_codes, max_codes)
        # The caller's come first: whatever they prefer, the grammar says what may follow at all.
        grammar = self._grammar(
            min_codes, max_codes, check_dead_ends=may_forbid_everything({**vars(model.generation_config), **options})
        )
        self._is_plain = self._takes_one_token_at_a_time(options)
        self._following = NextColumns(grammar) if self._is_plain and can_narrow(model) else None
        self._logits_processors = [*options.pop("logits_processor", []), grammar]
        if sampling is not None:  # last, for it leaves one token to choose from
            prompt_length = input_ids.shape[1]
            self._logits_processors.append(
                RepetitionAwareSampler(
                    processor.vocabulary,
                    sampling,
                    seed=settings.seed,
                    prompt_length=prompt_length,
                    columns=None if self._following is None else self._following.ids,
                )
            )
        self._stopping_criteria = [*options.pop("stopping_criteria", [])]
        self._stop_strings = _listed(options.get("stop_strings"))
        if self._stop_strings:
            options["tokenizer"] = processor.tokenizer  # transformers looks for their spellings in it
        # A row that something else than its end has stopped is filled up without a mark in between.
        self._may_stop_early = bool(self._stopping_criteria or self._stop_strings or options.get("max_time"))
        self._has_time_limit = options.get("max_time") is not None
        self._config = self._generation_config(options, is_drawn=sampling is not None)
        self._options = options

    @property
    def is_in_turns(self) -> bool:
        """Whether the words of the answers are given, to be written and spoken in turns."""
        return self._turns is not None

    def run(self, streamer: BaseStreamer | None = None, stopping: StoppingCriteria | None = None) -> GenerationResult:
        """Generates, once, and takes the answers apart.

        Args:
            streamer: gets the ids as they come.
            stopping: a further reason to stop.
        """
        stopping_criteria = self._stopping_criteria if stopping is None else [*self._stopping_criteria, stopping]
        narrowing: AbstractContextManager[None] = nullcontext()
        if self._following is not None:
            self._following.look(self._input_ids)
            stopping_criteria = [*stopping_criteria, self._following]
            narrowing = narrowed(self._model, self._following)
        with narrowing:
            output = self._model.generate(
                input_ids=self._input_ids,
                attention_mask=self._attention_mask,
                generation_config=self._config,
                logits_processor=LogitsProcessorList(self._logits_processors),
                stopping_criteria=StoppingCriteriaList(stopping_criteria),
                streamer=streamer,
                **({"past_key_values": roomy_cache(self._model)} if self._is_plain else {}),
                **self._options,
            )
        sequences = output if isinstance(output, Tensor) else output.sequences
        # A search may return several sequences for each row that went in (num_return_sequences of beams).
        num_answers = sequences.shape[0] // self._input_ids.shape[0]
        opened = [codes for codes in self._opened_segments() for _ in range(num_answers)]
        return self._read(sequences[:, self._input_ids.shape[1] :].cpu(), opened)

    def _takes_one_token_at_a_time(self, options: Mapping[str, Any]) -> bool:
        """Whether each step takes the likeliest of the logits as they are, and nothing but the grammar looks at them.

        Then those of other tokens need not be computed. A search normalizes all, a second model or a lookup proposes
        several tokens at once, and what processors of a caller read is theirs.
        """
        model = self._model
        stored = {name: value for name, value in vars(model.generation_config).items() if name not in _WRITTEN_OUT}
        asked = {"use_cache": True, **stored, **options}
        return (
            model.device.type == "cpu"
            and asked["use_cache"] is not False
            and model._supports_default_dynamic_cache()
            and not any(asked.get(name) and asked[name] != _SWITCHED_OFF.get(name) for name in _LOOKS_AT_LOGITS)
        )

    def _answer_length(self, settings: GenerationSettings, min_codes: int, max_codes: int | None) -> int:
        """The longest answer in tokens: as asked for, or what the limits need and, for audio, as much as there is."""
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        prompt_length = self._input_ids.shape[1]
        room = math.inf if context is None else context - prompt_length
        speaks = "audio" in self.modalities
        wanted, min_seconds = settings.max_new_tokens, settings.min_seconds
        beside_codes = _MARKS if self._turns is None else num_tokens_of_turns(self._turns)
        if wanted is not None:
            needed = wanted
            shortest = min_codes + beside_codes
            if speaks and min_seconds is not None and shortest > wanted and not self._is_inside.any():
                raise ValueError(
                    f"min_seconds={min_seconds} takes {shortest} tokens, but max_new_tokens={wanted}: raise it, or "
                    "leave it out"
                )
        else:
            text_tokens = TEXT_TOKENS if "text" in self.modalities and self._turns is None else 0
            needed = text_tokens + ((max_codes or min_codes) + beside_codes if speaks else 0)
            longest = text_tokens + beside_codes - _MARKS + AUDIO_TOKENS
            wanted = max(needed, longest) if speaks and max_codes is None else needed
        if needed > room:
            shorter = "the recording" if self._turns is None else "the text that is spoken in turns"
            answer = (
                f"max_new_tokens={needed}" if settings.max_new_tokens is not None else f"the answer may take {needed}"
            )
            raise ContextError(
                f"the prompt has {prompt_length} tokens and {answer}, but the context holds {context}: "
                f"shorten {shorter} or ask for a shorter answer"
            )
        # Only what was asked for, or what the limits need, must fit; audio without a limit takes what room there is.
        return int(min(wanted, room))

    def _ids_of_turns(self, turns: Sequence[Sequence[str]] | None) -> list[list[list[int]]] | None:
        if turns is None:
            return None
        if len(turns) != self.num_prompts:
            raise ValueError(f"turns for {len(turns)} answers came with {self.num_prompts} prompts: give each its own")
        if bool(self._is_inside.any()):
            raise ValueError("the prompt ends inside an audio segment, where no turn can begin: leave out turns")
        return [self._processor.plain_token_ids(words) for words in turns]

    def _grammar(self, min_codes: int, max_codes: int | None, check_dead_ends: bool) -> LogitsProcessor:
        limits: dict[str, Any] = {
            "eos_token_ids": self._eos_token_ids,
            "prompt_length": self._input_ids.shape[1],
            "min_codes": min_codes,
            "max_codes": max_codes,
            "check_dead_ends": check_dead_ends,
        }
        vocabulary = self._processor.vocabulary
        if self._turns is not None:
            return TurnsLogitsProcessor(vocabulary, self._turns, **limits)
        return AudioSegmentLogitsProcessor(
            vocabulary, self.modalities, num_tokens=len(self._processor.tokenizer), **limits
        )

    def _generation_config(self, options: dict[str, Any], is_drawn: bool) -> GenerationConfig:
        """A config in which our processors alone decide how to draw; takes its own settings out of the options."""
        stored = self._model.generation_config
        settings: dict[str, Any] = {
            "max_new_tokens": self._max_new_tokens,
            "eos_token_id": self._eos_token_ids or None,
            "pad_token_id": stored.pad_token_id if stored.pad_token_id is not None else self._processor.pad_token_id,
            "bos_token_id": stored.bos_token_id,
            **_WRITTEN_OUT,
        }
        known = vars(GenerationConfig())
        settings |= {name: options.pop(name) for name in list(options) if name in known}
        if is_drawn and (settings.get("num_beams") or 1) > 1:
            raise ValueError("beam search takes the most likely tokens: pass do_sample=False, or num_beams=1 to draw")
        return GenerationConfig(**settings)

    def _ids_that_end(self, asked: int | Sequence[int] | None) -> list[int]:
        """The ids that end an answer: those asked for, or else the checkpoint's, or else the text tokenizer's."""
        for eos in (asked, self._model.generation_config.eos_token_id, self._processor.tokenizer.eos_token_id):
            if eos is not None:
                return [eos] if isinstance(eos, int) else list(eos)
        return []

    def _opened_segments(self) -> list[int | None]:
        """How many codes the segment holds that each prompt leaves open; None where it leaves none."""
        start_id = self._processor.vocabulary.start_id
        return [
            row[::-1].index(start_id) if is_inside else None
            for row, is_inside in zip(self._input_ids.tolist(), self._is_inside.tolist(), strict=True)
        ]

    def _read(self, new_ids_BS: Tensor, opened: Sequence[int | None]) -> GenerationResult:
        """Cuts each row behind the id that ended it and takes it apart."""
        result = GenerationResult([], [], [], [], [])
        eos = torch.tensor(self._eos_token_ids, dtype=torch.long)
        for row_S, num_opened in zip(new_ids_BS, opened, strict=True):
            # A row that ended before the others has been filled up behind its end.
            ends = torch.isin(row_S, eos).nonzero()
            token_ids = row_S[: int(ends[0]) + 1] if len(ends) else self._without_filling(row_S)
            # A segment that the prompt opened would look unopened without its mark.
            opening = [self._processor.vocabulary.start_id] if num_opened is not None else []
            segments = self._processor.split([*opening, *token_ids.tolist()])
            result.token_ids.append(token_ids)
            result.texts.append(self._processor.decode(token_ids.tolist()))
            result.codes.append([segment.codes for segment in segments if isinstance(segment, AudioSegment)])
            result.segments.append(segments)
            has_ended = bool(len(ends)) or any(stop in result.texts[-1] for stop in self._stop_strings)
            is_cut = self._is_cut(len(token_ids), has_ended, result.codes[-1], num_opened or 0)
            result.finish_reasons.append("length" if is_cut else "stop")
        return result

    def _without_filling(self, row_S: Tensor) -> Tensor:
        """A row that did not end by an id of its own, without what it was filled up with."""
        if not self._may_stop_early:
            return row_S
        others = (row_S != self._config.pad_token_id).nonzero()
        return row_S[: int(others[-1]) + 1] if len(others) else row_S[:0]

    def _is_cut(self, num_tokens: int, has_ended: bool, codes: Sequence[Tensor], num_opened: int) -> bool:
        """Whether a limit ended an answer or one of its segments: an end that the grammar forces is no choice."""
        lengths = [len(segment) for segment in codes]
        if lengths:  # the first one goes on with what the prompt has of it
            lengths[0] += num_opened
        if self._turns is not None:
            lengths = [sum(lengths)]
        if self._max_codes is not None and max(lengths, default=0) >= self._max_codes:
            return True
        return not has_ended and (num_tokens >= self._max_new_tokens or self._has_time_limit)


def _listed(stop_strings: str | Sequence[str] | None) -> list[str]:
    return [] if stop_strings is None else [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
