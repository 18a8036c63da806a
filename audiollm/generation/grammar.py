"""The grammar of an answer: which tokens may follow, so that text and audio segments are always well formed.

A logits processor for transformers' ``generate``. It reads its state off the token ids it is given, so batches, left
padding, beam search and assisted decoding need nothing special.
"""
# Shapes: B rows, S token ids so far, W logits (at least as many as tokens).

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from audiollm.tokenizer.layout import CodeLayout, Following
from audiollm.vocabulary import AudioVocabulary

from .narrow_head import Columns

Modality = Literal["text", "audio"]
MODALITIES: tuple[Modality, ...] = ("text", "audio")


def check_modalities(modalities: Collection[str]) -> frozenset[str]:
    """Returns the modalities as a set.

    Raises:
        ValueError: if there are none, or one is neither "text" nor "audio".
    """
    if isinstance(modalities, str):
        modalities = {modalities}
    if not modalities or set(modalities) - set(MODALITIES):
        raise ValueError(f"modalities={modalities!r}: use {{'text'}}, {{'audio'}} or {{'text', 'audio'}}")
    return frozenset(modalities)


def ends_inside_audio(token_ids: Tensor, vocabulary: AudioVocabulary) -> Tensor:
    """True for rows of ids ``[B, S]`` whose last audio segment is still open; bool ``[B]``."""
    # A row without any mark has -1 twice, and so is outside.
    return last_index(token_ids, vocabulary.start_id) > last_index(token_ids, vocabulary.end_id)


class AudioSegmentLogitsProcessor(LogitsProcessor):
    """Allows only tokens that keep to the grammar.

    Inside an audio segment: codes, or ``<|audio_end|>`` once the segment is long enough, and nothing else once it is as
    long as it may get; of several codebooks, codes of the one whose turn it is, and the end only where all have the
    same frames. Outside: text (the end of the turn included), and ``<|audio_start|>`` if audio may be spoken. With
    ``{"audio"}`` alone the answer is one segment and the end. With ``{"text"}`` alone no audio token ever comes. Rows
    of the output head that belong to no token are never allowed.

    Args:
        vocabulary: where the audio tokens lie.
        modalities: what may be generated: {"text"}, {"audio"} or both.
        num_tokens: entries of the text tokenizer (``len(tokenizer)``); ids from there on are padding rows.
        eos_token_ids: ids that end the answer.
        prompt_length: ids of the (padded) prompt; for {"audio"}, to tell the answer's segment from the prompt's.
        min_codes: fewest codes of a segment, at least 1; of several codebooks, their symbols: so many, or those of the
            next whole frame.
        max_codes: most codes (symbols) of a segment; None for no limit.
        check_dead_ends: notice where processors before this one have forbidden all that may follow; a caller who sets
            none spares the wait for the device that it takes.

    Raises:
        ValueError: if the limits contradict each other or the modalities are not known; when it is called, if nothing
            may follow.
    """

    def __init__(
        self,
        vocabulary: AudioVocabulary,
        modalities: Collection[str],
        *,
        num_tokens: int,
        eos_token_ids: Sequence[int],
        prompt_length: int = 0,
        min_codes: int = 1,
        max_codes: int | None = None,
        check_dead_ends: bool = False,
    ) -> None:
        self.vocabulary = vocabulary
        self.modalities = check_modalities(modalities)
        if min_codes < 1 or (max_codes is not None and max_codes < min_codes):
            raise ValueError(f"min_codes={min_codes}, max_codes={max_codes}: use 1 <= min_codes <= max_codes")
        if self.modalities == {"audio"} and not eos_token_ids:
            raise ValueError("no end-of-sequence id: without one an answer of audio alone could not end")
        self.num_tokens = num_tokens
        self.eos_token_ids = list(eos_token_ids)
        self.prompt_length = prompt_length
        self.min_codes = min_codes
        self.max_codes = max_codes
        self.check_dead_ends = check_dead_ends
        self._rows = None if vocabulary.row_layout is None else RowRules(vocabulary, min_codes, max_codes)
        # Audio tokens stand behind all others, unless somebody has added some since.
        audio_ids = vocabulary.token_ids
        self._first_audio_id = audio_ids[0] if audio_ids[0] + len(audio_ids) == num_tokens else None
        self._masks: dict[tuple[int, torch.device], _Masks] = {}
        self._places: tuple[Tensor, Tensor, Tensor] | None = None

    def columns(self, input_ids: Tensor) -> Columns | None:
        """What may follow ``input_ids [B, S]`` in any row; None where that is nearly anything."""
        if self.modalities == {"text"}:
            return None if self._first_audio_id is None else Columns(0, self._first_audio_id)
        start_B, end_B = self._last_marks(input_ids)
        is_inside_B = start_B > end_B
        is_done_B = end_B >= self.prompt_length
        if self.modalities == {"text", "audio"}:
            # Rows that have ended are outside for good, and nobody asks what follows there.
            new_ids = input_ids[:, self.prompt_length :]
            is_done_B = torch.isin(new_ids, new_ids.new_tensor(self.eos_token_ids)).any(dim=1)
            if not bool((is_inside_B | is_done_B).all()):
                return None
        others = set(self.eos_token_ids if bool(is_done_B.any()) else ())
        if not bool((is_inside_B | is_done_B).all()):
            others.add(self.vocabulary.start_id)
        if self._rows is not None:
            return self._rows.columns(input_ids, start_B, is_inside_B, others)
        return code_columns(self.vocabulary, others, has_codes=bool(is_inside_B.any()))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Sets the logits ``[B, W]`` of everything that may not follow ``input_ids [B, S]`` to minus infinity."""
        allowed = self._allowed(input_ids, scores)
        if self.check_dead_ends:
            refuse_dead_ends(allowed)
        return allowed

    def _allowed(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        masks = self._masks_for(scores)
        if self.modalities == {"text"}:
            # The places of marks are not needed: a prompt that ends inside a segment is refused before.
            return scores.masked_fill(masks.no_text, -torch.inf)
        start_B, end_B = self._last_marks(input_ids)
        inside_B = start_B > end_B
        outside_BW = masks.text_or_start[None]
        if self.modalities == {"audio"}:
            # An end mark of the prompt closes a recording that was heard; only one behind it ends the answer.
            is_done_B = end_B >= self.prompt_length
            outside_BW = torch.where(is_done_B[:, None], masks.eos, masks.start)
        if self._rows is not None:
            inside_BW = self._rows.allowed(input_ids, start_B, scores)
            return scores.masked_fill(~torch.where(inside_B[:, None], inside_BW, outside_BW), -torch.inf)
        allowed_BW = torch.where(inside_B[:, None], masks.codes, outside_BW)
        # Of the open segment; where none is open the number means nothing, and `inside_B` keeps it out.
        num_codes_B = input_ids.shape[1] - 1 - start_B
        may_end_B = inside_B & (num_codes_B >= self.min_codes)
        # In place, for torch.where has made this tensor; the masks themselves are kept for the next token.
        allowed_BW[:, self.vocabulary.end_id] = may_end_B
        if self.max_codes is not None:
            must_end_B = inside_B & (num_codes_B >= self.max_codes)
            allowed_BW = torch.where(must_end_B[:, None], masks.end, allowed_BW)
        # Out of place: with output_logits, transformers hands the scores that it passed in to the caller.
        return scores.masked_fill(~allowed_BW, -torch.inf)

    def _last_marks(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Where the last start and end marks are, ``[B]`` each."""
        if self._places is None or self._places[0] is not input_ids:  # `columns` and the call see the same tensor
            start_id, end_id = self.vocabulary.start_id, self.vocabulary.end_id
            self._places = input_ids, last_index(input_ids, start_id), last_index(input_ids, end_id)
        return self._places[1:]

    def _masks_for(self, scores: Tensor) -> _Masks:
        # Once per width and device, not per token: five comparisons of 160,000 ids each would be made at every step.
        key = (scores.shape[1], scores.device)
        if key not in self._masks:
            if scores.shape[1] < self.num_tokens:
                raise ValueError(
                    f"the model has {scores.shape[1]} logits for {self.num_tokens} tokens: extend it first"
                )
            self._masks[key] = _Masks(self.vocabulary, self.num_tokens, self.eos_token_ids, *key)
        return self._masks[key]


class _Masks:
    """Which of W ids belong to each class; bool ``[W]`` each."""

    def __init__(
        self,
        vocabulary: AudioVocabulary,
        num_tokens: int,
        eos_token_ids: Sequence[int],
        width: int,
        device: torch.device,
    ) -> None:
        ids = torch.arange(width, device=device)
        self.codes = vocabulary.is_code(ids)
        self.text = ~vocabulary.is_audio(ids) & (ids < num_tokens)
        self.no_text = ~self.text
        self.start = ids == vocabulary.start_id
        self.end = ids == vocabulary.end_id
        self.text_or_start = self.text | self.start
        self.eos = torch.isin(ids, torch.tensor(eos_token_ids, device=device, dtype=ids.dtype))


class RowRules:
    """What may follow inside an audio segment whose symbols belong to several codebooks.

    Args:
        vocabulary: one with a layout of several codebooks.
        min_codes: fewest symbols of a segment, rounded up to whole frames.
        max_codes: most of them, rounded down; None for no limit.

    Raises:
        ValueError: if the limits leave no whole frame.
    """

    def __init__(self, vocabulary: AudioVocabulary, min_codes: int = 1, max_codes: int | None = None) -> None:
        assert vocabulary.row_layout is not None
        self._vocabulary = vocabulary
        self.layout: CodeLayout = vocabulary.row_layout
        self._min_frames = self.layout.frames_for(min_codes)
        self._max_frames = None if max_codes is None else self.layout.whole_frames(max_codes)
        if self._max_frames is not None and self._max_frames < self._min_frames:
            raise ValueError(
                f"min_codes={min_codes}, max_codes={max_codes}: between them lies no whole frame of {self.layout}; "
                f"{self._min_frames} take {self.layout.length(self._min_frames)} codes"
            )
        self._masks: dict[tuple[int, torch.device], Tensor] = {}
        self._read: tuple[Tensor, Following] | None = None

    def following(self, input_ids: Tensor, start_B: Tensor) -> Following:
        """What may follow ids ``[B, S]`` in the segment that begins at ``start_B``; of no use where none is open."""
        if self._read is None or self._read[0] is not input_ids:
            length_B = (input_ids.shape[1] - 1 - start_B).clamp(min=0)
            first_pad_B = torch.full_like(start_B, -1)
            if self.layout.pad is not None and input_ids.shape[1]:
                place_BS = torch.arange(input_ids.shape[1], device=input_ids.device) - 1 - start_B[:, None]
                is_pad_BS = input_ids == self._vocabulary.first_code_id + self.layout.pad
                is_pad_BS &= (place_BS >= 0) & (place_BS % self.layout.num_codebooks == 0)
                first_B = torch.where(is_pad_BS, place_BS, input_ids.shape[1]).amin(dim=1)
                first_pad_B = torch.where(first_B < length_B, first_B, first_pad_B)
            self._read = input_ids, self.layout.following(length_B, first_pad_B, self._min_frames, self._max_frames)
        return self._read[1]

    def allowed(self, input_ids: Tensor, start_B: Tensor, scores: Tensor) -> Tensor:
        """Which of the logits ``[B, W]`` belong to what may follow; bool, a new tensor."""
        following = self.following(input_ids, start_B)
        codes_KW = self._codes_of_codebooks(scores)
        allowed_BW = codes_KW[following.codebook] & following.takes_code[:, None]
        if self.layout.pad is not None:
            allowed_BW[:, self._vocabulary.first_code_id + self.layout.pad] = following.takes_pad
        allowed_BW[:, self._vocabulary.end_id] = following.may_end
        return allowed_BW

    def columns(self, input_ids: Tensor, start_B: Tensor, is_inside_B: Tensor, others: Collection[int]) -> Columns:
        """Other tokens, and what may follow in those rows that are inside a segment."""
        if not bool(is_inside_B.any()):
            return Columns(0, 0, tuple(sorted(others)))
        following = self.following(input_ids, start_B)
        takes_code_B = is_inside_B & following.takes_code
        first = end = 0
        if bool(takes_code_B.any()):
            codebooks = following.codebook[takes_code_B]
            lowest, highest = int(codebooks.min()), int(codebooks.max())
            first = self._vocabulary.first_code_id + self.layout.offsets[lowest]
            end = self._vocabulary.first_code_id + self.layout.offsets[highest] + self.layout.codebook_sizes[highest]
        wanted = set(others)
        if self.layout.pad is not None and bool((is_inside_B & following.takes_pad).any()):
            wanted.add(self._vocabulary.first_code_id + self.layout.pad)
        if bool((is_inside_B & following.may_end).any()):
            wanted.add(self._vocabulary.end_id)
        return Columns(first, end, tuple(sorted(one for one in wanted if not first <= one < end)))

    def _codes_of_codebooks(self, scores: Tensor) -> Tensor:
        """Which ids are codes of each codebook; bool ``[K, W]``, made once per width and device."""
        key = (scores.shape[1], scores.device)
        if key not in self._masks:
            symbols_W = torch.arange(scores.shape[1], device=scores.device) - self._vocabulary.first_code_id
            pairs = zip(self.layout.offsets, self.layout.codebook_sizes, strict=True)
            self._masks[key] = torch.stack([(symbols_W >= first) & (symbols_W < first + size) for first, size in pairs])
        return self._masks[key]


def code_columns(vocabulary: AudioVocabulary, others: Collection[int], *, has_codes: bool) -> Columns:
    """Other tokens, and what may follow inside an audio segment if ``has_codes``."""
    if not has_codes:
        return Columns(0, 0, tuple(sorted(others)))
    first, end = vocabulary.first_code_id, vocabulary.first_code_id + vocabulary.codebook_size
    if vocabulary.end_id == first - 1:
        first -= 1
    wanted = {*others, vocabulary.end_id}
    return Columns(first, end, tuple(sorted(one for one in wanted if not first <= one < end)))


def segment_limits(min_seconds: float | None, max_seconds: float | None, frame_rate: float) -> tuple[int, int | None]:
    """Turns seconds into ``(min_codes, max_codes)`` at ``frame_rate`` codes per second.

    Raises:
        ValueError: if a limit is negative, leaves no room for a single code, or the minimum is above the maximum.
    """
    # Rounded, since 0.28 * 25 is a little more than 7 and 1.16 * 25 a little less than 29.
    min_codes = 1 if min_seconds is None else max(1, math.ceil(round(min_seconds * frame_rate, 6)))
    max_codes = None if max_seconds is None else math.floor(round(max_seconds * frame_rate, 6))
    if max_codes is not None and 1 <= max_codes < min_codes and 0 <= (min_seconds or 0) <= (max_seconds or 0):
        raise ValueError(
            f"between min_seconds={min_seconds} and max_seconds={max_seconds} no sound ends: each code "
            f"lasts {1 / frame_rate:g} s; use max_seconds={min_codes / frame_rate:g}, or "
            f"min_seconds={max_codes / frame_rate:g}"
        )
    if (min_seconds is not None and min_seconds < 0) or (max_codes is not None and max_codes < min_codes):
        raise ValueError(
            f"min_seconds={min_seconds}, max_seconds={max_seconds}: use 0 <= min_seconds <= max_seconds, and at least "
            f"{1 / frame_rate:g} s for one code"
        )
    return min_codes, max_codes


def refuse_dead_ends(scores: Tensor) -> None:
    """Raises ValueError if some row of logits ``[B, W]`` allows no token at all."""
    if bool(torch.isneginf(scores).all(dim=-1).any()):
        raise ValueError(
            "the settings forbid every token that may follow in text and audio here: leave out what forbids tokens "
            "(no_repeat_ngram_size, suppress_tokens, min_new_tokens and their like)"
        )


def last_index(token_ids: Tensor, token_id: int) -> Tensor:
    """The last index of an id in each row of ``[B, S]``, int64 ``[B]``; -1 where it does not occur."""
    num_rows, num_ids = token_ids.shape
    indices = torch.arange(num_ids, device=token_ids.device)
    if num_ids == 0:  # amax refuses an empty axis
        return indices.new_full((num_rows,), -1)
    return torch.where(token_ids == token_id, indices, -1).amax(dim=1)
