"""What was generated, row by row: ids, text, codes and sound."""
# Shapes: T codes of one segment, N samples.

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from torch import Tensor

from audiollm.chat.segments import AudioSegment, TextSegment
from audiollm.data.audio.playing import audio_html, text_html
from audiollm.data.audio.writing import save_audio

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
        waveforms: float32 ``[N]`` of each audio segment, or one of all segments where the model speaks in turns; None
            if nothing was decoded.
        sample_rate: of the waveforms in Hz; None without.
    """

    token_ids: list[Tensor]
    texts: list[str]
    codes: list[list[Tensor]]
    segments: list[list[TextSegment | AudioSegment]]
    finish_reasons: list[FinishReason]
    waveforms: list[list[Tensor]] | None = None
    sample_rate: int | None = None

    def save(self, path: str | os.PathLike[str], row: int | None = None, segment: int | None = None) -> None:
        """Writes the sound of an answer; formats and errors as for `audiollm.data.audio.writing.save_audio`.

        Args:
            path: ends in ``.wav``, ``.flac`` or ``.ogg``.
            row: of which answer; None: there is sound in one only.
            segment: which audio segment of it; None: it has one only.

        Raises:
            ValueError: if there is no such sound, or more than one.
        """
        if self.waveforms is None or self.sample_rate is None:
            raise ValueError(
                "the answer holds no sound: allow 'audio' among the modalities, of a model that can decode its codes"
            )
        found = [
            (number, index, waveform)
            for number, waveforms in enumerate(self.waveforms)
            for index, waveform in enumerate(waveforms)
            if row in (None, number) and segment in (None, index)
        ]
        if len(found) != 1:
            numbers = [len(waveforms) for waveforms in self.waveforms]
            raise ValueError(
                f"row={row}, segment={segment} mean {len(found)} sounds (the answers have {numbers}): name one by row= "
                "and segment="
            )
        save_audio(path, found[0][2], self.sample_rate)

    def __getitem__(self, index: Any) -> NoReturn:
        raise TypeError(
            "a GenerationResult holds answers without their prompts: take its texts, codes, waveforms or token_ids, "
            "one for each row"
        )

    def _repr_html_(self) -> str:
        """Texts and players, for notebooks."""
        shown = []
        for row, text in enumerate(self.texts):
            shown += [text_html(text)] if text else []
            for waveform in [] if self.waveforms is None else self.waveforms[row]:
                assert self.sample_rate is not None  # comes with waveforms
                shown.append(audio_html(waveform, self.sample_rate))
        return "\n".join(shown)
