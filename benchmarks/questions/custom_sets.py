"""Sets of questions about one's own clips, in the layouts of the benchmarks.

Their answers are what SAP records say of the clips. Such a set tries a model, or the whole way from data to score,
without any download; its figures compare with those of the same set only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audiollm.data.audio.writing import wav_file
from audiollm.data.records import RecordReport
from audiollm.data.sap.question_records import ClipQuestion, clip_questions
from audiollm.data.sap.sounds import NoRuleError, sound_type_of

from .base import CUSTOM_SET_KEY, QuestionBenchmark
from .data import write_rows
from .items import CustomQuestion


def write_question_set(
    benchmark: QuestionBenchmark,
    source: Any,
    output_dir: str | os.PathLike[str],
    *,
    split: str | None = None,
    per_clip: int | None = None,
    seed: int = 0,
) -> RecordReport:
    """Writes a set: a file of questions, and the recordings as WAV beside it.

    Args:
        benchmark: whose layout it gets.
        source: clips with SAP records and recordings, see `audiollm.data.sap.question_records.clip_questions`.
        output_dir: folder; made if it is not there.
        split: clips of this split only.
        per_clip: most questions about a clip, drawn from all that can be asked; None: all.
        seed: of wordings, options and their order.

    Returns:
        How many questions there are of which field, and which clips were left out.

    Raises:
        ValueError: if nothing can be asked in this layout.
        AudioError: if a recording cannot be decoded.
        RecordError: if the source cannot be read.
        OSError: if the folder holds a set already.
    """
    folder, report = Path(output_dir), RecordReport()
    path = folder / benchmark.file_names[0]
    if path.exists():
        raise FileExistsError(f"{path} exists: choose another output, or delete it")
    records = list(_records(benchmark, source, folder, report, split=split, per_clip=per_clip, seed=seed))
    if not records:
        raise ValueError(f"nothing can be asked about any of the clips in the layout of {benchmark.title}\n{report}")
    write_rows(records, path)
    return report


def _records(
    benchmark: QuestionBenchmark, source: Any, folder: Path, report: RecordReport, **options: Any
) -> Iterator[dict[str, Any]]:
    """The questions, each recording being written before the first one about it."""
    (folder / benchmark.audio_folder).mkdir(parents=True, exist_ok=True)
    made = RecordReport()  # counts what can be asked; of that, some have no place in the layout
    places: dict[str, str] = {}
    for asked in clip_questions(source, kinds=("multiple_choice",), report=made, **options):
        place = places.get(asked.clip_id, f"./{benchmark.audio_folder}/{len(places):05d}.wav")
        try:
            record = benchmark.record_of(_custom_question(asked, place))
        except NoRuleError as error:
            report.leave_out(str(error), asked.clip_id)
            continue
        if record is None:
            report.leave_out(f"{benchmark.title} has no such questions", asked.clip_id)
            continue
        if asked.audio.path is None:
            report.leave_out("codes in place of a recording", asked.clip_id)
            continue
        if asked.clip_id not in places:
            (folder / place).write_bytes(wav_file(asked.audio.path))
            places[asked.clip_id] = place
        report.records[asked.question.field] += 1
        yield record | {CUSTOM_SET_KEY: True}
    report.left_out.update(made.left_out)
    report.examples.update(made.examples)


def _custom_question(asked: ClipQuestion, place: str) -> CustomQuestion:
    question = asked.question
    return CustomQuestion(
        id=f"{asked.clip_id}/{question.field}",
        audio=place,
        question=question.question,
        choices=question.choices or (),
        answer=question.answer,
        field=question.field,
        sound_type=sound_type_of(asked.clip),
        language=str(asked.clip.get("language", "")),
        source=str(asked.clip.get("source", "")),
    )
