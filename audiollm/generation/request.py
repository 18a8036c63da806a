"""One call of transformers' ``generate``: checked and made ready before it runs, its ids taken apart afterwards."""
# Shapes: B prompts, S token ids of the padded prompt, T codes of one segment.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from audiollm.chat.segments import AudioSegment
from audiollm.processing.processor import AudioLLMProcessor

from .cache import roomy_cache
from .grammar import ends_inside_audio
from .narrow_head import NextColumns, can_narrow, narrowed
from .passed_on import may_forbid_everything
from .plan import AnswerPlan, context_of
from .planning import plan_answers
from .result import GenerationResult
from .settings import GenerationSettings
from .values import check_token_ids

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


class GenerationRequest:
    """A checked call of ``generate``.

    Args:
        model: the causal LM.
        processor: its processor.
        input_ids: prompts padded on the left, int64 ``[B, S]``.
        attention_mask: 1 for real tokens, ``[B, S]``; None if all are.
        plan: the rules of the answers.
        options: further arguments of transformers' ``generate``, those that may be passed on.

    Raises:
        ValueError: if settings do not fit each other.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: AudioLLMProcessor,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        plan: AnswerPlan,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._processor = processor
        self._plan = plan
        self.modalities = plan.modalities
        self.num_prompts = input_ids.shape[0]
        options = dict(options or {})
        options.pop("eos_token_id", None)
        num_answers = options.get("num_return_sequences", 1)
        if plan.sampling is not None:  # to transformers the search is greedy, which gives one answer per row
            options.pop("num_return_sequences", None)
            input_ids = input_ids.repeat_interleave(num_answers, dim=0)
            attention_mask = None if attention_mask is None else attention_mask.repeat_interleave(num_answers, dim=0)
        self.num_answers = self.num_prompts * num_answers
        self._input_ids = input_ids.to(model.device)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        self._attention_mask = mask.to(model.device)
        self._is_inside = ends_inside_audio(input_ids, processor.vocabulary)
        # The caller's come first: whatever they prefer, the grammar says what may follow at all.
        prompt_length = input_ids.shape[1]
        grammar = plan.grammar(
            processor.vocabulary,
            len(processor.tokenizer),
            prompt_length,
            check_dead_ends=may_forbid_everything({**vars(model.generation_config), **options}),
        )
        self._is_plain = self._takes_one_token_at_a_time(options)
        self._following = NextColumns(grammar) if self._is_plain and can_narrow(model) else None
        columns = None if self._following is None else self._following.ids
        ours = plan.processors(processor.vocabulary, grammar, prompt_length, columns)
        self._logits_processors = [*options.pop("logits_processor", []), *ours]
        self._stopping_criteria = [*options.pop("stopping_criteria", [])]
        self._stop_strings = _listed(options.get("stop_strings"))
        if self._stop_strings:
            options["tokenizer"] = processor.tokenizer  # transformers looks for their spellings in it
        # A row that something else than its end has stopped is filled up without a mark in between.
        self._may_stop_early = bool(self._stopping_criteria or self._stop_strings or options.get("max_time"))
        self._has_time_limit = options.get("max_time") is not None
        self._config = self._generation_config(options, is_drawn=plan.sampling is not None)
        self._options = options

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        processor: AudioLLMProcessor,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        settings: GenerationSettings,
    ) -> GenerationRequest:
        """Plans the answers to prompts; arguments as above.

        Args:
            settings: what may be generated, how much, and how it is drawn.

        Raises:
            ValueError: if settings do not fit each other, or the prompt ends where nothing allowed can follow.
            ContextError: if prompt and answer do not fit the context.
        """
        check_token_ids(settings.transformers, model.config.get_text_config().vocab_size)
        plan = plan_answers(
            settings,
            processor,
            input_ids,
            generation_config=model.generation_config,
            context=context_of(model.config),
        )
        return cls(
            model,
            processor,
            input_ids=input_ids,
            attention_mask=attention_mask,
            plan=plan,
            options=settings.transformers,
        )

    @property
    def is_in_turns(self) -> bool:
        """Whether the words of the answers are given, to be written and spoken in turns."""
        return self._plan.turns is not None

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

    def _generation_config(self, options: dict[str, Any], is_drawn: bool) -> GenerationConfig:
        """A config in which our processors alone decide how to draw; takes its own settings out of the options."""
        stored = self._model.generation_config
        settings: dict[str, Any] = {
            "max_new_tokens": self._plan.max_new_tokens,
            "eos_token_id": list(self._plan.eos_token_ids) or None,
            "pad_token_id": stored.pad_token_id if stored.pad_token_id is not None else self._processor.pad_token_id,
            "bos_token_id": stored.bos_token_id,
            **_WRITTEN_OUT,
        }
        known = vars(GenerationConfig())
        settings |= {name: options.pop(name) for name in list(options) if name in known}
        if is_drawn and (settings.get("num_beams") or 1) > 1:
            raise ValueError("beam search takes the most likely tokens: pass do_sample=False, or num_beams=1 to draw")
        return GenerationConfig(**settings)

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
        eos = torch.tensor(self._plan.eos_token_ids, dtype=torch.long)
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
            lengths = [len(codes) for codes in result.codes[-1]]
            if lengths:  # the first one goes on with what the prompt has of it
                lengths[0] += num_opened or 0
            is_cut = self._plan.is_cut(len(token_ids), has_ended, lengths, timed=self._has_time_limit)
            result.finish_reasons.append("length" if is_cut else "stop")
        return result

    def _without_filling(self, row_S: Tensor) -> Tensor:
        """A row that did not end by an id of its own, without what it was filled up with."""
        if not self._may_stop_early:
            return row_S
        others = (row_S != self._config.pad_token_id).nonzero()
        return row_S[: int(others[-1]) + 1] if len(others) else row_S[:0]


def _listed(stop_strings: str | Sequence[str] | None) -> list[str]:
    return [] if stop_strings is None else [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
