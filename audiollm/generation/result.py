"""What was generated, row by row: ids, text, codes and sound."""
# Shapes: T codes of one segment, N samples.

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from audiollm.chat.segments import AudioSegment, TextSegment

FinishReason = Literal["stop", "length"]


def cut_notice(what: str, length: str, setting: str) -> str:
    """What people are told of a result that a limit cut.

    Args:
        what: was cut, such as "the answer".
        length: of what is there, such as "8 tokens".
        setting: the limit, called as the reader can set it.
    """
    return f"{what} was cut after {length}; {setting} allows longer ones"


@dataclass
class GenerationResult:
    """What was generated, one entry per row.

    Attributes:
        token_ids: new ids, int64, up to and with the one that ended the answer.
        texts: the text in them.
        codes: the codes of each audio segment, int64 ``[T]``.
        segments: text and audio in order; malformed audio is flagged there.
        finish_reasons: "stop" if the model (or a stop string) ended the answer, "length" if a limit cut it:
            ``max_new_tokens``, ``max_seconds`` of a segment, ``max_time``, or the end of the context.
        waveforms: float32 ``[N]`` of each audio segment; None if nothing was decoded.
        sample_rate: of the waveforms in Hz; None without.
    """

    token_ids: list[Tensor]
    texts: list[str]
    codes: list[list[Tensor]]
    segments: list[list[TextSegment | AudioSegment]]
    finish_reasons: list[FinishReason]
    waveforms: list[list[Tensor]] | None = None
    sample_rate: int | None = None
