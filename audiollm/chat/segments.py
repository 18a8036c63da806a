"""Token ids back to text and codes: a row of ids is cut into text segments and audio segments."""
# Shapes: S token ids of a row, T codes of one segment.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from audiollm.vocabulary import AudioVocabulary


@dataclass(frozen=True)
class TextSegment:
    """A run of text tokens.

    Attributes:
        text: without special tokens.
        token_ids: with them.
    """

    text: str
    token_ids: list[int]


@dataclass(frozen=True, eq=False)
class AudioSegment:
    """A run of codes.

    Attributes:
        codes: int64 in [0, V), ``[T]``; may be empty.
        problems: what is wrong with it: "unopened" (no start mark), "unclosed" (no end mark), "empty".
    """

    codes: Tensor
    problems: tuple[str, ...] = ()

    @property
    def well_formed(self) -> bool:
        """Whether start mark, codes and end mark are all there."""
        return not self.problems


def split_segments(
    token_ids: Tensor | Sequence[int], vocabulary: AudioVocabulary, decode: Callable[[list[int]], str]
) -> list[TextSegment | AudioSegment]:
    """Cuts ids into text and audio, in order.

    Audio that breaks the grammar is kept and flagged, never dropped: see `AudioSegment.problems`. Runs that hold
    special text tokens only (turn marks, padding) give no segment.

    Args:
        token_ids: one row, ``[S]``.
        vocabulary: tells codes and marks from text.
        decode: gives the text of ids, without special tokens.

    Raises:
        ValueError: if there is more than one row.
    """
    ids = torch.as_tensor(token_ids, dtype=torch.long).cpu()
    if ids.dim() != 1:
        raise ValueError(f"token ids have shape {tuple(ids.shape)}: split takes one row, [S]")
    segments: list[TextSegment | AudioSegment] = []
    run: list[int] = []  # codes or text ids of the current run
    state: Literal["text", "open", "unopened"] = "text"

    def close(has_end: bool = False) -> None:
        if state == "text":
            text = decode(run) if run else ""
            if text:
                segments.append(TextSegment(text, run.copy()))
        else:
            found = {"unopened": state == "unopened", "unclosed": not has_end, "empty": not run}
            problems = tuple(problem for problem, is_there in found.items() if is_there)
            segments.append(AudioSegment(torch.tensor(run, dtype=torch.long), problems))
        run.clear()

    for token_id, is_code in zip(ids.tolist(), vocabulary.is_code(ids).tolist(), strict=True):
        is_end = token_id == vocabulary.end_id
        if token_id == vocabulary.start_id:
            close()
            state = "open"
            continue
        if (is_code or is_end) and state == "text":
            close()
            state = "unopened"
        if is_end:
            close(has_end=True)
            state = "text"
        elif is_code:
            run.append(token_id - vocabulary.first_code_id)
        else:
            if state != "text":
                close()
                state = "text"
            run.append(token_id)
    close()
    return segments
