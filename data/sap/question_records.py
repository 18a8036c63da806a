"""Conversations about clips with SAP records, for fine-tuning: a user asks about a recording and is answered."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiollm.data.conversation.audio_parts import clip_part, parse_audio_part
from audiollm.data.conversation.problems import ConversationError
from audiollm.data.conversation.types import AudioPart
from audiollm.data.manifest import Manifest, RecordError, open_manifest
from audiollm.data.records import RecordReport, write_records
from audiollm.data.sampling import draw

from .parsing import parse_sap
from .questions import QUESTION_KINDS, Question, QuestionKind, Vocabulary, collect_vocabulary, questions
from .record import SapError, SapRecord

TASK = "sap_question"
_KEPT_KEYS = ("split", "group", "language", "licence", "attribution")


def write_question_records(
    source: Any,
    output: str | os.PathLike[str],
    *,
    seed: int = 0,
    kinds: Sequence[QuestionKind] = QUESTION_KINDS,
    per_clip: int | None = None,
    split: str | None = None,
    vocabulary: Vocabulary | None = None,
) -> RecordReport:
    """Writes the conversations of `question_records` as JSONL; the file appears whole or not at all.

    Args:
        source: clips with SAP records, see `question_records`.
        output: the file; paths of audio below its folder are written relative to it, others absolute.
        seed: see `question_records`, as for the other arguments.
        kinds: kinds of questions.
        per_clip: most questions per clip.
        split: clips of this split only.
        vocabulary: values to draw wrong answers from.

    Returns:
        How many questions there are of which field, and which clips were left out.

    Raises:
        ValueError: if nothing can be asked about any clip, or a kind is unknown.
        RecordError: if the source cannot be read.
    """
    report = RecordReport()
    records = question_records(
        source, seed=seed, kinds=kinds, per_clip=per_clip, split=split, vocabulary=vocabulary, report=report
    )
    write_records(records, output, report, if_none="nothing can be asked about any of the clips")
    return report


def question_records(source: Any, **options: Any) -> Iterator[dict[str, Any]]:
    """Makes conversation records: a recording and a question, and the answer that its SAP record gives.

    Args:
        source: clips with SAP records, see `clip_questions`.
        options: its other arguments.

    Yields:
        Records with the field asked about, the kind of question and the id of its wording (``prompt``).

    Raises:
        ValueError: if a kind is unknown or ``per_clip`` is not positive.
        RecordError: if the source cannot be read.
    """
    for asked in clip_questions(source, **options):
        kept = {key: asked.clip[key] for key in _KEPT_KEYS if asked.clip.get(key) is not None}
        yield question_conversation(asked.question, asked.audio, asked.clip_id) | kept


@dataclass(frozen=True)
class ClipQuestion:
    """A question about a clip.

    Attributes:
        question: the question.
        clip_id: id of the clip, or where it stands if it has none.
        clip: its record.
        audio: the recording, or its codes.
    """

    question: Question
    clip_id: str
    clip: Mapping[str, Any]
    audio: AudioPart


def clip_questions(
    source: Any,
    *,
    seed: int = 0,
    kinds: Sequence[QuestionKind] = QUESTION_KINDS,
    per_clip: int | None = None,
    split: str | None = None,
    vocabulary: Vocabulary | None = None,
    report: RecordReport | None = None,
) -> Iterator[ClipQuestion]:
    """Asks what the SAP records of clips answer.

    Args:
        source: anything that `audiollm.data.manifest.open_manifest` opens, with records ``{"id", "sap", "codes" or
            "audio", …}``, as `audiollm.data.labelling.by_rules` and ``audiollm label`` write them.
        seed: another seed, other questions, choices and claims.
        kinds: kinds of questions, see `audiollm.data.sap.questions.questions`.
        per_clip: most questions per clip, drawn from all that can be asked; None: all.
        split: clips of this split only; None: all.
        vocabulary: values to draw wrong answers from; None: those of the source itself, which is read twice then.
        report: is filled in while the records are made.

    Yields:
        The questions, clip by clip.

    Raises:
        ValueError: if a kind is unknown or ``per_clip`` is not positive.
        RecordError: if the source cannot be read.
    """
    if per_clip is not None and per_clip < 1:
        raise ValueError(f"per_clip={per_clip}: use 1 or more, or None for all questions")
    report = RecordReport() if report is None else report
    manifest = open_manifest(source)
    if vocabulary is None:
        vocabulary = collect_vocabulary(sap for _, _, sap in _clips(manifest, split, RecordReport()))
    for index, clip, sap in _clips(manifest, split, report):
        where = manifest.where(index)
        try:
            audio = _audio(clip, where, manifest.base_dir(index))
        except RecordError as error:
            report.leave_out(f"no audio: {error.reason}", where)
            continue
        clip_id = str(clip.get("id", where))
        asked = questions(sap, f"{seed} {clip_id}", kinds=kinds, vocabulary=vocabulary)
        for question in _drawn(asked, per_clip, f"{seed} {clip_id}"):
            report.records[question.field] += 1
            yield ClipQuestion(question, clip_id, clip, audio)


def question_conversation(question: Question, audio: AudioPart, clip_id: str) -> dict[str, Any]:
    """The conversation of one question, as ``training/sft.py`` reads it.

    Args:
        question: the question.
        audio: what is asked about.
        clip_id: id of the clip; the record's is made from it.
    """
    request = [audio.to_dict(), {"type": "text", "text": question.text}]
    return {
        "id": f"{clip_id}/{question.field}/{question.kind}",
        "task": TASK,
        "messages": [
            {"role": "user", "content": request},
            {"role": "assistant", "content": [{"type": "text", "text": question.answer}]},
        ],
        "field": question.field,
        "kind": question.kind,
        "prompt": f"sap/{question.prompt}",
    }


def _clips(
    manifest: Manifest, split: str | None, report: RecordReport
) -> Iterator[tuple[int, Mapping[str, Any], SapRecord]]:
    """The clips of a split that have a SAP record, with their indices."""
    for index in range(len(manifest)):
        try:
            clip = manifest[index]
        except RecordError as error:
            report.leave_out(error.reason, error.where)
            continue
        if not isinstance(clip, Mapping):
            report.leave_out("not an object", manifest.where(index))
            continue
        if split is not None and clip.get("split") != split:
            continue
        if clip.get("sap") is None:
            report.leave_out("no SAP record", manifest.where(index))
            continue
        try:
            sap = parse_sap(clip["sap"])
        except SapError as error:
            report.leave_out(f"sap: {error.problems[0]}", manifest.where(index))
            continue
        yield index, clip, sap


def _audio(clip: Mapping[str, Any], where: str, base_dir: str | None) -> AudioPart:
    if clip.get("codes") is not None:
        return parse_audio_part({"codes": clip["codes"]}, where=where)
    part = clip_part(clip, where, base_dir)
    if part.path is None:
        raise ConversationError(where, "the audio lies inside the record; write it to a file first")
    return dataclasses.replace(part, path=os.path.abspath(part.path))


def _drawn(asked: list[Question], per_clip: int | None, key: str) -> list[Question]:
    if per_clip is None or len(asked) <= per_clip:
        return asked
    ranks = {question: draw(f"ask {question.field} {question.kind}", key, 2**62) for question in asked}
    kept = set(sorted(asked, key=ranks.__getitem__)[:per_clip])
    return [question for question in asked if question in kept]
