"""Answers step by step: the frames of two audio parts between their marks, or text."""
# Shapes: B prompts, R rows that are computed (B, or 2 B with guidance: those with the prompt, then those without), S
# steps, K audio streams, D width, A audio vocabulary of a stream, V text vocabulary.

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from .cache import UniAudioCache
from .checks import check_inputs
from .configuration import UniAudioLMConfig
from .settings import Choice, GenerationSettings, StreamedFrame, StreamedText


class WritingModel(Protocol):
    """What of a `UniAudioLM` writes answers."""

    config: UniAudioLMConfig
    projection: nn.Linear
    local_decoder: nn.Module

    def hidden_states(
        self, input_ids: Tensor, stream_mask: Tensor, attention_mask: Tensor | None, caches: UniAudioCache | None
    ) -> Tensor: ...

    def embed_codes(self, codes: Tensor, stream: int) -> Tensor: ...

    def stream_logits(self, hidden: Tensor, stream: int) -> Tensor: ...

    def get_output_embeddings(self) -> nn.Module: ...


@dataclass
class UniAudioGeneration:
    """Answers, one entry per prompt."""

    text_ids: list[Tensor] = field(default_factory=list)
    """int64 ``[T]``, the id that ended it left out; empty for audio."""
    reasoning: list[Tensor] = field(default_factory=list)
    """int64 ``[K, T]``, counted inside their own vocabulary."""
    reconstruction: list[Tensor] = field(default_factory=list)
    """int64 ``[K, T]``, counted inside their own vocabulary."""
    finished: list[bool] = field(default_factory=list)
    """Whether it ended by itself, not at the limit."""


def generate(
    model: WritingModel, input_ids: Tensor, stream_mask: Tensor, settings: GenerationSettings
) -> UniAudioGeneration:
    """Writes whole answers; arguments and errors as of `UniAudioLM.generate`."""
    num_rows, num_streams = len(input_ids), model.config.num_audio_streams
    texts: list[list[int]] = [[] for _ in range(num_rows)]
    frames: dict[str, list[list[Tensor]]] = {
        part: [[] for _ in range(num_rows)] for part in ("reasoning", "reconstruction")
    }
    events = stream(model, input_ids, stream_mask, settings)
    while True:
        try:
            event = next(events)
        except StopIteration as stop:
            finished: list[bool] = stop.value
            break
        if isinstance(event, StreamedText):
            texts[event.row].append(event.token_id)
        else:
            frames[event.part][event.row].append(event.codes)

    def joined(rows: list[list[Tensor]]) -> list[Tensor]:
        nothing = torch.zeros(num_streams, 0, dtype=torch.int64)
        return [torch.stack(row, 1) if row else nothing for row in rows]

    return UniAudioGeneration(
        [torch.tensor(one, dtype=torch.int64) for one in texts],
        joined(frames["reasoning"]),
        joined(frames["reconstruction"]),
        finished,
    )


def stream(
    model: WritingModel, input_ids: Tensor, stream_mask: Tensor, settings: GenerationSettings
) -> Generator[StreamedText | StreamedFrame, None, list[bool]]:
    """Gives tokens or frames when they are there; its return value says which answers ended by themselves."""
    # Here, not with the first token: what is wrong is told where it is given.
    stream_mask = check_inputs(input_ids, stream_mask, model.config)
    return _events(model, input_ids, stream_mask, _check_padding(stream_mask), settings)


@torch.no_grad()
def _events(
    model: WritingModel, input_ids: Tensor, stream_mask: Tensor, present: Tensor, settings: GenerationSettings
) -> Generator[StreamedText | StreamedFrame, None, list[bool]]:
    choice = Choice(settings.temperature, settings.top_k, settings.seed, input_ids.device)
    if settings.output == "text":
        steps = Steps(model, input_ids, stream_mask, present, settings.use_cache)
        return (yield from _write_text(model, steps, choice, settings))
    if settings.guidance_scale != 1:
        other_ids, other_mask = _unconditional(model.config, input_ids, stream_mask, settings)
        input_ids, stream_mask = torch.cat((input_ids, other_ids)), torch.cat((stream_mask, other_mask))
        present = torch.cat((present, _check_padding(other_mask)))
    steps = Steps(model, input_ids, stream_mask, present, settings.use_cache)
    return (yield from _write_audio(model, steps, choice, settings))


class Steps:
    """A sequence that grows, and the hidden state of its last step.

    Args:
        model: computes it.
        input_ids: the prompt, ``[R, S, K + 1]``.
        stream_mask: bool ``[R, S, K + 1]``.
        present: bool ``[R, S]``, which steps are no padding.
        use_cache: keep keys and values; otherwise the whole sequence is computed at each step.
    """

    def __init__(
        self, model: WritingModel, input_ids: Tensor, stream_mask: Tensor, present: Tensor, use_cache: bool = True
    ) -> None:
        self.model = model
        self.caches = UniAudioCache.empty(model.config) if use_cache else None
        self.input_ids = input_ids[:, :0]
        self.stream_mask = stream_mask[:, :0]
        self.present = present[:, :0]
        self.has_padding = not bool(present.all())
        self.append(input_ids, stream_mask, present)

    def add_frame(self, codes: Tensor) -> None:
        """Appends a frame, ``[R, K]`` or ``[R / 2, K]``, which is then that of both halves."""
        ids = nn.functional.pad(self._of_both(codes), (0, 1))[:, None]
        mask = torch.ones_like(ids, dtype=torch.bool)
        mask[..., -1] = False
        self.append(ids, mask)

    def add_text(self, token_ids: Tensor) -> None:
        """Appends a text token, ``[R]``."""
        ids = nn.functional.pad(token_ids[:, None], (self.input_ids.shape[-1] - 1, 0))[:, None]
        mask = torch.zeros_like(ids, dtype=torch.bool)
        mask[..., -1] = True
        self.append(ids, mask)

    def _of_both(self, codes: Tensor) -> Tensor:
        return codes.repeat(len(self.input_ids) // len(codes), 1)

    def append(self, ids: Tensor, mask: Tensor, present: Tensor | None = None) -> None:
        """Appends steps, ``[R, S, K + 1]``; all of them are no padding where ``present`` is None."""
        present = torch.ones_like(mask[..., 0]) if present is None else present
        self.present = torch.cat((self.present, present), 1)
        attention = self.present.long() if self.has_padding else None
        if self.caches is None:
            self.input_ids = ids = torch.cat((self.input_ids, ids), 1)
            self.stream_mask = mask = torch.cat((self.stream_mask, mask), 1)
        else:
            self.input_ids = ids
        self.hidden_all = self.model.hidden_states(ids, mask, attention, self.caches)
        self.hidden = self.hidden_all[:, -1]


def write_frame(
    model: WritingModel,
    hidden_RD: Tensor,
    choose: Callable[[Tensor], Tensor],
    *,
    forbidden_BKA: Tensor | None = None,
    guidance_scale: float = 1.0,
    use_cache: bool = True,
) -> Tensor:
    """Writes the codes of a frame one after another, each told those before it.

    Args:
        model: its local decoder writes.
        hidden_RD: hidden state of the step before, ``[R, D]``; with guidance, rows with the prompt, then those without.
        choose: picks ids ``[B]`` from logits ``[B, A]``.
        forbidden_BKA: which codes may not be, bool ``[B or 1, K or 1, A]``; None: all may.
        guidance_scale: 1 for no guidance.
        use_cache: keep keys and values from code to code; they last for this frame alone.

    Returns:
        Codes, int64 ``[B, K]``, counted through the whole vocabulary of a stream.
    """
    config = model.config
    cache = DynamicCache(config=config.local_decoder_config) if use_cache else None
    sequence = model.projection(hidden_RD)[:, None]
    codes: list[Tensor] = []
    for number in range(config.num_audio_streams):
        inputs = sequence if cache is None else sequence[:, -1:]
        written = model.local_decoder(inputs_embeds=inputs, past_key_values=cache, use_cache=False).last_hidden_state
        logits = guided(model.stream_logits(written[:, -1], number).float(), guidance_scale)
        if forbidden_BKA is not None:
            forbidden = forbidden_BKA.expand(-1, config.num_audio_streams, -1)[:, number]
            logits = logits.masked_fill(forbidden, -math.inf)
        code = choose(logits)
        codes.append(code)
        if number + 1 < config.num_audio_streams:
            vector = model.projection(model.embed_codes(code, number))[:, None]
            vector = vector.repeat(len(hidden_RD) // len(code), 1, 1)
            sequence = torch.cat((sequence, vector), 1)
    return torch.stack(codes, -1)


def guided(logits: Tensor, scale: float) -> Tensor:
    """Moves logits with the prompt, the first half of the rows, away from those without it; scale 1: as they are."""
    if scale == 1:
        return logits
    with_prompt, without = logits.chunk(2)
    return without + scale * (with_prompt - without)


# Audio


class _Parts:
    """Where an answer is among its audio parts."""

    def __init__(self, config: UniAudioLMConfig, names: list[str]) -> None:
        self.config = config
        self.waiting = names
        self.part: str | None = None
        self.num_frames = 0
        self.finished = False
        self.begin_next()

    def begin_next(self) -> None:
        self.part = self.waiting.pop(0) if self.waiting else None
        self.forced = None if self.part is None else self.mark("bos")

    def mark(self, ending: str) -> int | None:
        """A mark of the current part, counted through the whole vocabulary of a stream."""
        assert self.part is not None
        found = self.config.marks.of_part(self.part).get(ending)
        return None if found is None else found + self.config.offset_of(self.part)


def _write_audio(
    model: WritingModel, steps: Steps, choice: Choice, settings: GenerationSettings
) -> Generator[StreamedFrame, None, list[bool]]:
    config = model.config
    num_prompts = len(steps.input_ids) // (2 if settings.guidance_scale != 1 else 1)
    rows = [_Parts(config, list(settings.parts)) for _ in range(num_prompts)]
    device = steps.input_ids.device
    forbidden = {part: _forbidden(config, part).to(device) for part in settings.parts}
    anything = torch.zeros(config.num_audio_streams, config.audio_vocab_size, dtype=torch.bool, device=device)
    while True:
        if all(row.forced is not None or row.part is None for row in rows):
            frame = torch.zeros(num_prompts, config.num_audio_streams, dtype=torch.int64, device=device)
        else:
            masks = torch.stack([anything if row.part is None else forbidden[row.part] for row in rows])
            frame = write_frame(
                model, steps.hidden, choice, forbidden_BKA=masks, guidance_scale=settings.guidance_scale,
                use_cache=settings.use_cache,
            )  # fmt: skip
        for number, row in enumerate(rows):
            yield from _advance(row, number, frame[number], settings.max_frames)
        if all(row.part is None for row in rows):
            return [row.finished for row in rows]
        steps.add_frame(frame)


def _advance(row: _Parts, number: int, codes: Tensor, max_frames: int) -> Iterator[StreamedFrame]:
    """Makes a mark of the frame where one is due, in place; gives what is none."""
    if row.part is None:
        return
    if row.forced is not None:
        codes.fill_(row.forced)
        row.forced = None
        return
    end = row.mark("eos")
    if end is not None and int(codes[0]) == end:  # the first stream decides for all
        codes.fill_(end)
        row.finished = not row.waiting
        row.begin_next()
        return
    yield StreamedFrame(number, row.part, codes.cpu() - row.config.offset_of(row.part))
    row.num_frames += 1
    if row.num_frames >= max_frames:
        row.waiting = []
        row.begin_next()


def _forbidden(config: UniAudioLMConfig, part: str) -> Tensor:
    """Which codes may not be in a frame of a part, bool ``[K, A]``: of the other part, and marks but for its end."""
    start, size = config.offset_of(part), config.size_of(part)
    forbidden = torch.ones(config.num_audio_streams, config.audio_vocab_size, dtype=torch.bool)
    forbidden[:, start : start + size] = False
    marks = config.marks.of_part(part)
    for one in marks.values():
        forbidden[:, start + one] = True
    if "eos" in marks:
        forbidden[0, start + marks["eos"]] = False
    if bool(forbidden.all(-1).any()):
        raise ValueError(f"{part}_vocab_size={size} holds no code beside its marks: nothing can be written")
    return forbidden


def _unconditional(
    config: UniAudioLMConfig, input_ids: Tensor, stream_mask: Tensor, settings: GenerationSettings
) -> tuple[Tensor, Tensor]:
    if settings.unconditional_ids is not None and settings.unconditional_mask is not None:
        if settings.unconditional_ids.shape != input_ids.shape:
            raise ValueError(
                f"unconditional_ids has shape {list(settings.unconditional_ids.shape)}, but the prompt "
                f"{list(input_ids.shape)}: both are computed together"
            )
        return settings.unconditional_ids, check_inputs(settings.unconditional_ids, settings.unconditional_mask, config)
    pad = config.marks.required("text_pad", "guidance")
    ids, mask = torch.zeros_like(input_ids), torch.zeros_like(stream_mask)
    ids[..., -1] = pad
    mask[..., -1] = stream_mask.any(-1)
    return ids, mask


def _check_padding(stream_mask: Tensor) -> Tensor:
    """Which steps are no padding, ``[R, S]``."""
    present = stream_mask.any(-1)
    if not bool(present[:, -1].all()):
        raise ValueError("a prompt ends with padding: pad shorter prompts on the left, so that answers follow them")
    if bool((present[:, :-1] & ~present[:, 1:]).any()):
        raise ValueError("stream_mask has a step without any id between others: only the left of a prompt is padded")
    return present


# Text


def _write_text(
    model: WritingModel, steps: Steps, choice: Choice, settings: GenerationSettings
) -> Generator[StreamedText, None, list[bool]]:
    stops = set(_stop_ids(model.config, settings))
    num_rows = len(steps.input_ids)
    finished = [False] * num_rows
    for number in range(settings.max_new_tokens):
        token_ids = choice(model.get_output_embeddings()(steps.hidden).float())
        for row, token_id in enumerate(token_ids.tolist()):
            if finished[row]:
                continue
            if token_id in stops:
                finished[row] = True
            else:
                yield StreamedText(row, token_id)
        if all(finished) or number + 1 == settings.max_new_tokens:
            break
        steps.add_text(token_ids)
    return finished


def _stop_ids(config: UniAudioLMConfig, settings: GenerationSettings) -> list[int]:
    size = config.text_config.vocab_size
    if settings.stop_ids is not None:
        wrong = [one for one in settings.stop_ids if not 0 <= one < size]
        if wrong:
            raise ValueError(f"stop_ids: {wrong[0]} is not in [0, {size}), the text vocabulary")
        return list(settings.stop_ids)
    found: Any = config.text_config.eos_token_id
    ends = [found] if isinstance(found, int) else list(found or [])
    return [*ends, *(pair[1] for pair in config.marks.text_parts.values())]
