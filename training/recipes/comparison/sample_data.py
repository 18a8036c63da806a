"""Training data and question sets of the recordings that ship, for studies that bring none of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from audiollm.benchmarks.comparison.study import SpeechSettings, UnderstandingSettings
from audiollm.benchmarks.questions.custom_sets import write_question_set
from audiollm.benchmarks.questions.registry import BENCHMARKS
from audiollm.benchmarks.sample_scores import LANGUAGE, write_meta
from audiollm.data.corpora.sample_corpus import SAMPLE_FOLDER
from audiollm.data.files.json_lines import read_json_lines, write_json_lines
from audiollm.data.labelling.by_rules import label_by_rules
from audiollm.data.sap.question_records import write_question_records
from audiollm.data.voices.speech_records import SpeechTaskSettings, write_speech_records

PROMPT = "sap-1"
"""How sets are asked whose questions are worded as in the training data made here."""
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
            lambda path=path, split=split: write_question_records(  # type: ignore[misc]
                labels, path, split=split, kinds=("multiple_choice",), per_clip=QUESTIONS_PER_CLIP
            ),
        )
    sets = {name: getattr(settings, name) for name in BENCHMARKS}
    for name in (name for name, given in sets.items() if given is None):
        benchmark, sets[name] = BENCHMARKS[name], str(folder / name)
        if not (folder / name / benchmark.file_names[0]).exists():
            write_question_set(benchmark, labels, folder / name, split=TEST, per_clip=1)
    return replace(
        settings,
        train_data=str(train),
        eval_data=settings.eval_data or str(held_out),
        **sets,
        prompt=settings.prompt or PROMPT,
    )


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


def _labels(folder: Path) -> Path:
    path = folder / "labels.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    _once(path, lambda: label_by_rules(SAMPLE_FOLDER, path))
    return path


def _once(path: Path, make: Callable[[], object]) -> None:
    """Makes a file that is not there; it appears whole or not at all."""
    if not path.exists():
        make()
