"""One call of transformers' ``generate``: checked and made ready before it runs, its ids taken apart afterwards."""
# Shapes: B prompts, S token ids of the padded prompt, T codes of one segment.

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
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
from audiollm.processing import AudioLLMProcessor

from .grammar import (
    AudioSegmentLogitsProcessor,
    RepetitionAwareSampler,
    SamplingSettings,
    check_modalities,
    ends_inside_audio,
    segment_limits,
)
from .result import GenerationResult

TEXT_TOKENS = 256  # room for text where nothing else is said
AUDIO_TOKENS = 768  # room for audio: 30 s at 25 codes per second, and the marks
_MARKS = 3  # start of audio, end of audio, end of the answer


class ContextError(ValueError):
    """A prompt and its answer are longer than the model's context."""


@dataclass(frozen=True, kw_only=True)
class AnswerLimits:
    """What may be generated, and how much of it.

    Attributes:
        modalities: {"text"}, {"audio"} (one segment) or {"text", "audio"}.
        max_new_tokens: longest answer; None: 256 for text, and room for ``max_seconds`` (30 s if not given) of audio.
        min_seconds: shortest audio segment.
        max_seconds: longest audio segment.
    """

    modalities: Collection[str] = ("text",)
    max_new_tokens: int | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None


class GenerationRequest:
    """A checked call of ``generate``.

    Args:
        model: the causal LM.
        processor: its processor.
        input_ids: prompts padded on the left, int64 ``[B, S]``.
        attention_mask: 1 for real tokens, ``[B, S]``; None if all are.
        limits: what may be generated, and how much.
        sampling: how to draw; None for the most likely tokens.
        seed: of the draws.
        generate_kwargs: passed on to transformers' ``generate``.

    Raises:
        ValueError: if settings contradict each other, or the prompt ends where nothing allowed can follow.
        ContextError: if prompt and answer do not fit the context.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: AudioLLMProcessor,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        limits: AnswerLimits,
        sampling: SamplingSettings | None,
        seed: int | None,
        generate_kwargs: dict[str, Any],
    ) -> None:
        self._model = model
        self._processor = processor
        self.modalities = check_modalities(limits.modalities)
        self.num_prompts = input_ids.shape[0]
        options = dict(generate_kwargs)
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
        if (limits.min_seconds, limits.max_seconds) != (None, None):
            frame_rate = processor.audio_tokenizer.frame_rate
            min_codes, max_codes = segment_limits(limits.min_seconds, limits.max_seconds, frame_rate)
        self._max_new_tokens = self._answer_length(limits, min_codes, max_codes)
        self._logits_processors = [*options.pop("logits_processor", []), self._grammar(min_codes, max_codes)]
        if sampling is not None:  # last, for it decides
            prompt_length = input_ids.shape[1]
            sampler = RepetitionAwareSampler(processor.vocabulary, sampling, seed=seed, prompt_length=prompt_length)
            self._logits_processors.append(sampler)
        self._stopping_criteria = [*options.pop("stopping_criteria", [])]
        self._config = self._generation_config(options, is_drawn=sampling is not None)
        self._options = options

    def run(self, streamer: BaseStreamer | None = None, stopping: StoppingCriteria | None = None) -> GenerationResult:
        """Generates, once, and takes the answers apart.

        Args:
            streamer: gets the ids as they come.
            stopping: a further reason to stop.
        """
        stopping_criteria = self._stopping_criteria if stopping is None else [*self._stopping_criteria, stopping]
        output = self._model.generate(
            input_ids=self._input_ids,
            attention_mask=self._attention_mask,
            generation_config=self._config,
            logits_processor=LogitsProcessorList(self._logits_processors),
            stopping_criteria=StoppingCriteriaList(stopping_criteria),
            streamer=streamer,
            **self._options,
        )
        sequences = output if isinstance(output, Tensor) else output.sequences
        is_inside = self._is_inside.repeat_interleave(sequences.shape[0] // self._input_ids.shape[0])
        return self._read(sequences[:, self._input_ids.shape[1] :].cpu(), is_inside.tolist())

    def _answer_length(self, limits: AnswerLimits, min_codes: int, max_codes: int | None) -> int:
        """The longest answer in tokens: as asked for, or what the limits need and, for audio, as much as there is."""
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        prompt_length = self._input_ids.shape[1]
        room = math.inf if context is None else context - prompt_length
        speaks = "audio" in self.modalities
        if limits.max_new_tokens is not None:
            needed = wanted = limits.max_new_tokens
            if speaks and limits.min_seconds is not None and min_codes + _MARKS > wanted and not self._is_inside.any():
                raise ValueError(
                    f"min_seconds={limits.min_seconds} takes {min_codes + _MARKS} tokens, but max_new_tokens={wanted}: "
                    "raise it, or leave it out"
                )
        else:
            text_tokens = TEXT_TOKENS if "text" in self.modalities else 0
            needed = text_tokens + ((max_codes or min_codes) + _MARKS if speaks else 0)
            wanted = max(needed, text_tokens + AUDIO_TOKENS) if speaks and max_codes is None else needed
        if needed > room:
            raise ContextError(
                f"the prompt has {prompt_length} tokens and max_new_tokens={needed}, but the context holds {context}: "
                "shorten the recording or ask for a shorter answer"
            )
        return int(min(wanted, room))

    def _grammar(self, min_codes: int, max_codes: int | None) -> AudioSegmentLogitsProcessor:
        return AudioSegmentLogitsProcessor(
            self._processor.vocabulary,
            self.modalities,
            num_tokens=len(self._processor.tokenizer),
            eos_token_ids=self._eos_token_ids,
            prompt_length=self._input_ids.shape[1],
            min_codes=min_codes,
            max_codes=max_codes,
        )

    def _generation_config(self, options: dict[str, Any], is_drawn: bool) -> GenerationConfig:
        """A config in which our processors alone decide how to draw; takes its own settings out of the options."""
        own = self._model.generation_config
        settings: dict[str, Any] = {
            "max_new_tokens": self._max_new_tokens,
            "eos_token_id": self._eos_token_ids or None,
            "pad_token_id": own.pad_token_id if own.pad_token_id is not None else self._processor.pad_token_id,
            "bos_token_id": own.bos_token_id,
            # Written out, for what is left open is taken from the checkpoint's own settings.
            "do_sample": False,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
            "repetition_penalty": 1.0,
        }
        known = vars(GenerationConfig())
        settings |= {name: options.pop(name) for name in list(options) if name in known}
        if is_drawn and (settings.get("num_beams") or 1) > 1:
            raise ValueError("beam search takes the most likely tokens: pass do_sample=False, or num_beams=1 to draw")
        return GenerationConfig(**settings)

    @property
    def _eos_token_ids(self) -> list[int]:
        eos: Any = self._model.generation_config.eos_token_id
        if eos is None:
            eos = self._processor.tokenizer.eos_token_id
        return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)

    def _read(self, new_ids_BS: Tensor, is_inside: Sequence[bool]) -> GenerationResult:
        """Cuts each row behind the id that ended it and takes it apart."""
        result = GenerationResult([], [], [], [], [])
        eos = torch.tensor(self._eos_token_ids, dtype=torch.long)
        for row_S, starts_inside in zip(new_ids_BS, is_inside, strict=True):
            ends = torch.isin(row_S, eos).nonzero()
            token_ids = row_S[: int(ends[0]) + 1] if len(ends) else row_S
            is_cut = not len(ends) and len(row_S) >= self._max_new_tokens
            opening = [self._processor.vocabulary.start_id] if starts_inside else []
            segments = self._processor.split([*opening, *token_ids.tolist()])
            result.token_ids.append(token_ids)
            result.texts.append(self._processor.decode(token_ids.tolist()))
            result.codes.append([segment.codes for segment in segments if isinstance(segment, AudioSegment)])
            result.segments.append(segments)
            result.finish_reasons.append("length" if is_cut else "stop")
        return result
