"""Training data and question sets of the recordings that ship, for studies that bring none of their own."""

from __future__ import annotations

import string
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from audiollm.benchmarks.comparison.study import SpeechSettings, UnderstandingSettings
from audiollm.benchmarks.questions.asking.prompts import prompt_named
from audiollm.benchmarks.questions.custom_sets import write_question_set
from audiollm.benchmarks.questions.registry import BENCHMARKS
from audiollm.benchmarks.sample_scores import LANGUAGE, write_meta
from audiollm.data.corpora.sample_corpus import SAMPLE_FOLDER
from audiollm.data.files.json_lines import read_json_lines, write_json_lines
from audiollm.data.labelling.by_rules import label_by_rules
from audiollm.data.records import RecordReport, write_records
from audiollm.data.sap.question_records import clip_questions, question_conversation
from audiollm.data.sap.questions import Question
from audiollm.data.voices.speech_records import SpeechTaskSettings, write_speech_records

SEEDS = {"mmau": 0, "mmar": 1, "mmsu": 2}
"""Of the questions of each set, so that they are not the same."""
LETTERED, MOST_LETTERS = "mmsu", 4  # MMSU reads the letter of an option, of which it has four; the others read its text
QUESTIONS_PER_CLIP = 3
TRAIN, TEST = "train", "test"


def with_sample_questions(settings: UnderstandingSettings, folder: Path) -> UnderstandingSettings:
    """The settings with the sample's own questions, which are made if they are not there.

    Args:
        settings: what they say themselves is kept.
        folder: for the data.
    """
    labels = _labels(folder)
    train, held_out = folder / "questions_train.jsonl", folder / "questions_test.jsonl"
    for path, split in ((train, TRAIN), (held_out, TEST)):
        _once(
            path,
            lambda path=path, split=split: write_worded_questions(labels, path, split=split),  # type: ignore[misc]
        )
    sets = {name: getattr(settings, name) for name in BENCHMARKS}
    for name in (name for name, given in sets.items() if given is None):
        benchmark, sets[name] = BENCHMARKS[name], str(folder / name)
        if not (folder / name / benchmark.file_names[0]).exists():
            write_question_set(benchmark, labels, folder / name, split=TEST, per_clip=1, seed=SEEDS[name])
    return replace(settings, train_data=str(train), eval_data=settings.eval_data or str(held_out), **sets)


def with_sample_speech(settings: SpeechSettings, folder: Path) -> SpeechSettings:
    """The settings with the sample's English speech as texts to speak, which are made if they are not there."""
    speech = folder / "speech.jsonl"
    spoken = [record for record in read_json_lines(_labels(folder)) if record.get("language") == LANGUAGE]
    _once(speech, lambda: write_json_lines(speech, spoken))
    train, held_out = folder / "spoken_train.jsonl", folder / "spoken_test.jsonl"
    for path, split in ((train, TRAIN), (held_out, TEST)):
        _once(
            path,
            lambda path=path, split=split: write_speech_records(speech, path, SpeechTaskSettings(split=split)),  # type: ignore[misc]
        )
    meta = folder / "seed-tts" / "meta.lst"
    _once(meta, lambda: write_meta([one for one in spoken if one["split"] == TEST], meta.parent))
    return replace(
        settings, train_data=str(train), eval_data=settings.eval_data or str(held_out), meta=settings.meta or str(meta)
    )


def write_worded_questions(
    labels: Path, output: Path, *, split: str | None = None, sets: Sequence[str] = tuple(SEEDS)
) -> None:
    """Writes questions, each worded as one of the sets asks and answered as that one reads, so that all are learnt.

    Args:
        labels: clips with SAP records.
        output: JSONL of conversations.
        split: clips of this split only; None: all.
        sets: names of question benchmarks, of `SEEDS`.

    Raises:
        ValueError: nothing can be asked.
    """
    report = RecordReport()
    write_records(_questions(labels, split, sets, report), output, report, if_none=f"{labels}: nothing can be asked")


def _questions(labels: Path, split: str | None, sets: Sequence[str], report: RecordReport) -> Iterator[dict[str, Any]]:
    for asked in clip_questions(
        labels, split=split, kinds=("multiple_choice",), per_clip=QUESTIONS_PER_CLIP, report=report
    ):
        question = asked.question
        has_letters = len(question.choices or ()) <= MOST_LETTERS
        names = [one for one in sets if has_letters or one != LETTERED]
        if not names:
            report.leave_out(f"more options than {LETTERED} has letters for", asked.clip_id)
            continue
        # By a sum of the id: neither a field nor a recording belongs to one wording.
        name = names[zlib.crc32(f"{asked.clip_id} {question.field}".encode()) % len(names)]
        request, reply = _worded(question, name)
        record = question_conversation(question, asked.audio, asked.clip_id)
        record["messages"][0]["content"][-1]["text"] = request
        record["messages"][1]["content"][0]["text"] = reply
        yield record | {"prompt": prompt_named(None, name).id}


def _worded(question: Question, name: str) -> tuple[str, str]:
    """Request and reply as a set has them."""
    assert question.choices is not None
    choices: list[str | None] = [*question.choices]
    if name != LETTERED:
        return prompt_named(None, name).render(question.question, choices), question.answer
    letter = string.ascii_uppercase[choices.index(question.answer)]
    choices += [None] * (MOST_LETTERS - len(choices))
    return prompt_named(None, name).render(question.question, choices), letter


def _labels(folder: Path) -> Path:
    path = folder / "labels.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    _once(path, lambda: label_by_rules(SAMPLE_FOLDER, path))
    return path


def _once(path: Path, make: Callable[[], object]) -> None:
    """Makes a file that is not there; it appears whole or not at all."""
    if not path.exists():
        make()
