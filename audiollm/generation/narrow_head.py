"""The output head computed for those tokens alone that the grammar allows next, on processors.

A step of decoding reads every weight once, and the head of a small LLM with 160,000 rows is half of them. Inside an
audio segment 8,193 rows matter; where only one token may follow, none does.
"""
# Shapes: B rows, S token ids so far, W logits, H hidden size.

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, StoppingCriteria

_ROWS = 16
"""Slices of the head begin and end at multiples of this many rows. MKL takes four rows at a time, from the first on, so
that each logit is then computed as it is in the whole head; other kernels may differ from it in the last bit."""


@dataclass(frozen=True)
class Columns:
    """Tokens that may follow in some row, and perhaps some more: ids from ``first`` up to ``end``, and others.

    Attributes:
        first: the first id of the range.
        end: the id behind its last; not above ``first`` where there is no range.
        others: ids outside of it.
    """

    first: int
    end: int
    others: tuple[int, ...] = ()

    def ids(self, device: torch.device) -> Tensor:
        """All of them, int64, in order."""
        ids = torch.cat([torch.arange(self.first, max(self.first, self.end)), torch.tensor(self.others).long()])
        return ids.sort().values.to(device)


class Grammar(Protocol):
    """A logits processor that can tell beforehand what it will allow."""

    def columns(self, input_ids: Tensor) -> Columns | None:
        """What may follow ``input_ids [B, S]`` in any row; None: nearly anything."""


def united(columns: Iterable[Columns | None]) -> Columns | None:
    """What may follow in any of several answers; None where in one of them nearly anything may."""
    known = list(columns)
    if None in known:
        return None
    some = [one for one in known if one is not None]
    ranges = [(one.first, one.end) for one in some if one.first < one.end]
    first, end = (min(first for first, _ in ranges), max(end for _, end in ranges)) if ranges else (0, 0)
    others = {other for one in some for other in one.others if not first <= other < end}
    return Columns(first, end, tuple(sorted(others)))


class Following(Protocol):
    """Whoever knows what may follow in what is computed next."""

    @property
    def columns(self) -> Columns | None:
        """None: nearly anything."""


class NextColumns(StoppingCriteria):
    """Finds out with each new token what may follow it; a criterion, for those see the ids first. Stops nothing.

    Args:
        grammar: knows.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._ids: dict[Columns, Tensor] = {}
        self.columns: Columns | None = None
        self._is_running: Tensor | None = None

    def look(self, input_ids: Tensor) -> None:
        """Takes ids ``[B, S]``: the prompt, or all there are so far."""
        self.columns = self._grammar.columns(input_ids)

    def ids(self, device: torch.device) -> Tensor | None:
        """The ids of the columns, int64; None for all."""
        if self.columns is None:
            return None
        if self.columns not in self._ids:
            self._ids = {self.columns: self.columns.ids(device)}  # that of a segment stays the same for long
        return self._ids[self.columns]

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """False for each row of ``input_ids [B, S]``; bool ``[B]``."""
        self.look(input_ids)
        if self._is_running is None:
            self._is_running = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        return self._is_running


def can_narrow(model: PreTrainedModel) -> bool:
    """Whether the head of a model is a plain layer on a processor, which is read as a whole for each token."""
    head = model.get_output_embeddings()
    return (
        type(head) in (nn.Linear, _NarrowLinear)
        and type(head.weight) is nn.Parameter  # and no shard of one
        and head.weight.device.type == "cpu"
        and not hasattr(head, "_hf_hook")  # which would bring the weights from elsewhere
    )


@contextmanager
def narrowed(model: PreTrainedModel, following: Following) -> Iterator[None]:
    """Within the block, and in this thread alone, logits other than those of ``following.columns`` are minus infinity.

    Args:
        model: one of those that `can_narrow` allows.
        following: has seen the prompt, and sees each token that is generated.
    """
    head: Any = model.get_output_embeddings()
    before = _in_this_thread.following
    with _lock:
        _num_blocks[id(head)] += 1
        head.__class__ = _NarrowLinear
    _in_this_thread.following = following
    try:
        yield
    finally:
        _in_this_thread.following = before
        with _lock:
            _num_blocks[id(head)] -= 1
            if not _num_blocks[id(head)]:
                del _num_blocks[id(head)]
                head.__class__ = nn.Linear


class _InThisThread(threading.local):
    following: Following | None = None


_in_this_thread = _InThisThread()
_lock = threading.Lock()
_num_blocks: Counter[int] = Counter()
"""How many blocks of how many threads narrow a head, by its id."""


class _NarrowLinear(nn.Linear):
    """A head for the time in which somebody generates with it; to whoever has not asked for less it is a whole one."""

    def forward(self, input: Tensor) -> Tensor:
        following = _in_this_thread.following
        columns = None if following is None else following.columns
        return super().forward(input) if columns is None else _logits(self, input, columns)


def _logits(head: nn.Linear, hidden: Tensor, columns: Columns) -> Tensor:
    """``[..., W]`` from ``[..., H]``."""
    logits = hidden.new_full((*hidden.shape[:-1], head.out_features), -torch.inf)
    if columns.first < columns.end:
        rows = slice(columns.first // _ROWS * _ROWS, -(-columns.end // _ROWS) * _ROWS)
        part = F.linear(hidden, head.weight[rows], None if head.bias is None else head.bias[rows])
        logits[..., columns.first : columns.end] = part[..., columns.first - rows.start : columns.end - rows.start]
    if columns.others:
        others = torch.tensor(columns.others, device=hidden.device)
        logits[..., others] = F.linear(hidden, head.weight[others], None if head.bias is None else head.bias[others])
    return logits
