"""Report of a tokenized corpus: recordings, seconds, codes and speed, counted record by record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class CorpusReport:
    """What a corpus became. Counts cover the whole output, resumed parts too; times cover this run."""

    output: str
    records: int = 0
    clips: int = 0
    seconds: float = 0.0  # of audio
    tokens: int = 0
    tokens_per_second: float = 0.0  # of audio
    skipped: int = 0  # records left out because something in them is bad
    rejected: str | None = None  # the file that lists them
    resumed: int = 0  # records that an earlier run had done
    wall_seconds: float = 0.0
    realtime_speed: float = 0.0  # seconds of audio encoded per second of this run
    encoder_idle_share: float = 0.0  # of this run: the audio tokenizer waited for audio, or for what it made to be kept
    decoders_idle_share: float = 0.0  # of this run: the decoding threads waited, because enough audio lay ready

    def add(self, output: Mapping[str, Any]) -> None:
        """Adds an output record to the totals; the same whether it was made now or by the run that was interrupted."""
        self.records += 1
        if "messages" not in output:
            codes = output["codes"]
            self.clips += 1
            self.tokens += len(codes) if isinstance(codes[0], int) else len(codes) * len(codes[0])
            self.seconds += output["duration_seconds"]
            return
        parts = [part for message in output["messages"] for part in message["content"] if part["type"] == "audio"]
        self.clips += len(parts)
        self.tokens += sum(len(part["codes"]) for part in parts)
        self.seconds += output.get("audio_seconds", 0.0)

    def reject(self, entry: Mapping[str, Any]) -> None:
        """Counts a record that is left out."""
        self.skipped += 1
