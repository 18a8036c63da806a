"""What a file of another project became."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ConversionReport:
    """What a file of another project became.

    Attributes:
        output: the file of our records.
        format: what the input was read as.
        conversations: records written that can be trained on.
        clips: records written of recordings, without a question.
        rejected: records of the input that came to nothing.
        rejected_list: the file that says why.
        audio_files: recordings that lay inside records, each written once.
        audio_folder: where those files are.
    """

    output: str
    format: str
    conversations: int = 0
    clips: int = 0
    rejected: int = 0
    rejected_list: str | None = None
    audio_files: int = 0
    audio_folder: str | None = None

    @property
    def num_records(self) -> int:
        """Records written."""
        return self.conversations + self.clips

    def __str__(self) -> str:
        kinds = [("conversations", self.conversations), ("clips", self.clips)]
        made = ", ".join(f"{count} {name}" for name, count in kinds if count)
        lines = [f"read as {self.format}: {self.num_records} records ({made}), {self.rejected} rejected"]
        if self.rejected_list is not None:
            lines.append(f"{self.rejected_list} says why")
        if self.audio_folder is not None:
            lines.append(f"{self.audio_files} recordings out of records are in {self.audio_folder}")
        return "\n".join(lines)
