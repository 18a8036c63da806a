"""What was said in a recording and when, as text, JSON or subtitles."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from audiollm.data.files.atomic import atomic_write
from audiollm.generation.result import FinishReason

TranscriptFormat = Literal["txt", "json", "srt", "vtt"]
SegmentReason = FinishReason | Literal["silent"]


@dataclass(frozen=True)
class TranscriptSegment:
    """What was said in one piece of a recording.

    Attributes:
        start: in seconds.
        end: in seconds.
        text: what was said; empty where the model wrote nothing, or was not asked.
        finish_reason: "stop" if the model ended the text, "length" if a limit cut it, "silent" if nothing was heard in
            the piece, so that the model was not asked.
    """

    start: float
    end: float
    text: str
    finish_reason: SegmentReason


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording.

    Attributes:
        segments: its pieces in order, which cover all of it.
    """

    segments: list[TranscriptSegment]

    @property
    def text(self) -> str:
        """All that was said, in one line."""
        return " ".join(segment.text.strip() for segment in self.segments if segment.text.strip())

    @property
    def duration_seconds(self) -> float:
        """How long the recording is."""
        return self.segments[-1].end if self.segments else 0.0

    @property
    def finish_reason(self) -> str:
        """ "length" if any text was cut, "silent" if nothing was heard at all, else "stop"."""
        reasons = {segment.finish_reason for segment in self.segments}
        return "length" if "length" in reasons else "silent" if reasons == {"silent"} else "stop"

    def to_dict(self) -> dict[str, Any]:
        """Text, reason and segments, as they are written as JSON."""
        segments = [asdict(segment) for segment in self.segments]
        return {"text": self.text, "finish_reason": self.finish_reason, "segments": segments}

    def to_format(self, kind: TranscriptFormat) -> str:
        """The transcript as the contents of a file.

        Args:
            kind: "txt" (one line), "json", "srt" (SubRip) or "vtt" (WebVTT).

        Raises:
            ValueError: for another kind.
        """
        if kind == "txt":
            return self.text + "\n"
        if kind == "json":
            return json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n"
        spoken = [segment for segment in self.segments if segment.text.strip()]
        if kind == "srt":
            return "".join(f"{number}\n{_cue(segment, ',')}\n" for number, segment in enumerate(spoken, start=1))
        if kind == "vtt":
            return "WEBVTT\n\n" + "".join(f"{_cue(segment, '.', escaped=True)}\n" for segment in spoken)
        raise ValueError(f"kind={kind!r}: a transcript is written as one of {', '.join(get_args(TranscriptFormat))}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the transcript, whole or not at all, as the ending of the path says: .txt, .json, .srt or .vtt.

        Raises:
            ValueError: for another ending.
        """
        text = self.to_format(format_of(path))
        with atomic_write(path) as file:
            file.write(text)


def format_of(path: str | os.PathLike[str]) -> TranscriptFormat:
    """The format that the ending of a path says.

    Raises:
        ValueError: for another ending.
    """
    ending = Path(path).suffix.lower()
    for kind in get_args(TranscriptFormat):
        if ending == f".{kind}":
            return kind
    endings = ", ".join(f".{kind}" for kind in get_args(TranscriptFormat))
    raise ValueError(f"{os.fspath(path)}: a transcript ends in one of {endings}")


def _cue(segment: TranscriptSegment, decimal: str, escaped: bool = False) -> str:
    # An empty line ends a cue, so a text has none; players of WebVTT read markup, those of SubRip differ.
    text = re.sub(r"\s*\n\s*", "\n", segment.text.strip().replace("\r", "\n"))
    if escaped:
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{_time(segment.start, decimal)} --> {_time(segment.end, decimal)}\n{text}\n"


def _time(seconds: float, decimal: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{decimal}{milliseconds % 1000:03d}"
