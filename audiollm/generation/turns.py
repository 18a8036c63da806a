"""Answers that write and speak a given text in turns: a word, its codes, the next word, and so on to the end.

What is to be said next then stands right before the codes that say it; a small model needs not find its place in a
text. The words are given, so that nothing else is written or spoken.
"""
# Shapes: B rows, S token ids so far, K turns, L ids of a turn's words, W logits.

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor

from audiollm.vocabulary import AudioVocabulary

from .grammar import RowRules, code_columns, last_index, refuse_dead_ends
from .narrow_head import Columns


def turns_of(text: str) -> list[str]:
    """A text as the words of its turns; joined, they are the text with single spaces.

    A word is what stands between spaces. What has no letter or digit, such as a dash, goes with the word behind it, or
    at the end with the one before.
    """
    turns: list[str] = []
    waiting: list[str] = []
    for word in text.split():
        waiting.append(word)
        if any(character.isalnum() for character in word):
            turns.append(" ".join(waiting))
            waiting = []
    if waiting:
        turns[-1:] = [" ".join([*turns[-1:], *waiting])]
    return [turn if number == 0 else f" {turn}" for number, turn in enumerate(turns)]


class TurnsLogitsProcessor(LogitsProcessor):
    """Allows only an answer that writes given words and speaks after each: words, an audio segment, words, …, the end.

    Where ``max_codes`` are reached the answer ends, whatever is left to say. It reads its state off the token ids, as
    `audiollm.generation.grammar.AudioSegmentLogitsProcessor` does.

    Args:
        vocabulary: where the audio tokens lie.
        turns: of each prompt, the ids of the words of each turn; every prompt has some, and every turn.
        eos_token_ids: ids that end the answer, none of which is in a turn; the first one does.
        prompt_length: ids of the (padded) prompts.
        min_codes: fewest codes of an answer; its last segment goes on until then.
        max_codes: most codes of an answer; None for no limit.
        check_dead_ends: as for `audiollm.generation.grammar.AudioSegmentLogitsProcessor`.

    Raises:
        ValueError: if nothing could end the answer, or something in it would; when it is called, if nothing may follow.
    """

    def __init__(
        self,
        vocabulary: AudioVocabulary,
        turns: Sequence[Sequence[Sequence[int]]],
        *,
        eos_token_ids: Sequence[int],
        prompt_length: int,
        min_codes: int = 1,
        max_codes: int | None = None,
        check_dead_ends: bool = False,
    ) -> None:
        if not eos_token_ids:
            raise ValueError("no end-of-sequence id: without one an answer in turns could not end")
        written = set(chain.from_iterable(chain.from_iterable(turns)))
        early = [one for one in eos_token_ids if one in written or vocabulary.is_audio(torch.tensor(one))]
        if early:
            raise ValueError(
                f"eos_token_id={early[0]} is written or spoken in the answers, and would end them before all is said: "
                "leave it out, or name an id that no turn holds"
            )
        if vocabulary.row_layout is not None and vocabulary.row_layout.order == "delay":
            raise ValueError(
                "an answer in turns would need the pads of a delayed row for each word: use a model with "
                "code_order='flat', or leave out turns"
            )
        self._vocabulary = vocabulary
        self._rows = None if vocabulary.row_layout is None else RowRules(vocabulary)
        self._plan = _plan(turns, vocabulary.start_id, eos_token_ids[0])
        self._num_turns = torch.tensor([len(words) for words in turns])
        self._prompt_length = prompt_length
        self._eos_token_id = eos_token_ids[0]
        self._min_codes = min_codes
        self._max_codes = max_codes
        self._check_dead_ends = check_dead_ends
        self._state: tuple[Tensor, _State] | None = None

    def columns(self, input_ids: Tensor) -> Columns:
        """What may follow ``input_ids [B, S]`` in any row."""
        state = self._state_of(input_ids)
        is_written_B = ~state.is_inside
        others = set(state.following[is_written_B].tolist())
        if self._rows is not None:
            if bool(state.may_end.any()):
                others.add(self._vocabulary.end_id)
            start_B = last_index(input_ids, self._vocabulary.start_id)
            return self._rows.columns(input_ids, start_B, state.is_inside & ~state.is_full, others)
        return code_columns(self._vocabulary, others, has_codes=bool(state.is_inside.any()))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Sets the logits ``[B, W]`` of everything that may not follow ``input_ids [B, S]`` to minus infinity."""
        state = self._state_of(input_ids)
        ids_W = torch.arange(scores.shape[1], device=scores.device)
        # Inside, codes follow, or the end of the segment; outside one token: that of the plan, or the end.
        codes = self._vocabulary.is_code(ids_W)
        if self._rows is not None:
            codes = self._rows.allowed(input_ids, last_index(input_ids, self._vocabulary.start_id), scores)
        allowed_BW = (state.is_inside & ~state.is_full)[:, None] & codes
        allowed_BW[:, self._vocabulary.end_id] = state.may_end
        allowed_BW |= ~state.is_inside[:, None] & (ids_W == state.following[:, None])
        allowed = scores.masked_fill(~allowed_BW, -torch.inf)
        if self._check_dead_ends:
            refuse_dead_ends(allowed)
        return allowed

    def _state_of(self, input_ids: Tensor) -> _State:
        if self._state is None or self._state[0] is not input_ids:  # `columns` and the call see the same tensor
            self._state = input_ids, self._read(input_ids)
        return self._state[1]

    def _read(self, input_ids: Tensor) -> _State:
        new_ids_BS = input_ids[:, self._prompt_length :]
        num_rows, length = new_ids_BS.shape
        start_id, end_id = self._vocabulary.start_id, self._vocabulary.end_id
        start_B, end_B = last_index(new_ids_BS, start_id), last_index(new_ids_BS, end_id)
        is_inside_B = start_B > end_B
        num_codes_B = self._vocabulary.is_code(new_ids_BS).sum(dim=1)
        is_full_B = torch.zeros_like(is_inside_B) if self._max_codes is None else num_codes_B >= self._max_codes
        is_between_B = torch.ones_like(is_inside_B)  # the codebooks have the same frames
        if self._rows is not None:
            num_codebooks = self._rows.layout.num_codebooks
            is_between_B = num_codes_B % num_codebooks == 0
            if self._max_codes is not None:  # another frame would be more than there may be
                is_full_B = is_between_B & (num_codes_B + num_codebooks > self._max_codes)

        plan_BKL = self._plan.to(input_ids.device).repeat_interleave(num_rows // len(self._plan), dim=0)
        num_turns_B = self._num_turns.to(input_ids.device).repeat_interleave(num_rows // len(self._num_turns))
        turn_B = (new_ids_BS == end_id).sum(dim=1)
        # A row that has ended is filled up; whatever is said of what follows there, nobody reads it.
        place_B = (length - 1 - end_B).clamp(max=plan_BKL.shape[2] - 1)
        rows_B = torch.arange(num_rows, device=input_ids.device)
        next_B = plan_BKL[rows_B, turn_B.clamp(max=plan_BKL.shape[1] - 1), place_B]
        next_B = torch.where(is_full_B, self._eos_token_id, next_B)

        is_last_B = turn_B == num_turns_B - 1
        may_end_B = (start_B < length - 1) & (~is_last_B | (num_codes_B >= self._min_codes)) & is_between_B
        return _State(is_inside_B, is_full_B, is_inside_B & (may_end_B | is_full_B), next_B)


class _State(NamedTuple):
    """Where each row of a batch is; ``[B]`` each."""

    is_inside: Tensor  # in an audio segment
    is_full: Tensor  # all codes are there that there may be
    may_end: Tensor  # the segment that the row is in
    following: Tensor  # outside of segments: the id that follows


def num_tokens_of_turns(turns: Sequence[Sequence[Sequence[int]]]) -> int:
    """The most tokens beside codes that an answer takes: its words, two marks for each turn, and the end."""
    return max(sum(len(words) + 2 for words in one) for one in turns) + 1


def _plan(turns: Sequence[Sequence[Sequence[int]]], start_id: int, eos_token_id: int) -> Tensor:
    """What follows outside of audio, int64 ``[B, K + 1, L + 1]``: a turn's words and the start of its codes; behind the
    last turn the end."""
    num_turns = max(len(one) for one in turns)
    length = max(len(words) for words in chain.from_iterable(turns))
    plan = torch.full((len(turns), num_turns + 1, length + 1), eos_token_id)
    for row, one in enumerate(turns):
        for turn, words in enumerate(one):
            plan[row, turn, : len(words) + 1] = torch.tensor([*words, start_id])
    return plan
