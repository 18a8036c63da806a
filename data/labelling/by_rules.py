"""Training records with SAP for clips whose labels are known: the rules of ``rules.py`` over a whole manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from audiollm.data.conversation.audio_parts import clip_part
from audiollm.data.manifest import RecordError, open_manifest
from audiollm.data.records import RecordReport, write_records
from audiollm.data.sap.record import SapRecord
from audiollm.data.sap.sounds import NoRuleError, sound_type_of
from audiollm.data.sap.validation import validate_sap

from .rules import RULES, SapRules, rules_for

_KEPT_KEYS = ("duration_seconds", "split", "group", "language", "label", "speaker", "licence", "attribution", "source")


def label_by_rules(
    source: Any, output: str | os.PathLike[str], *, rules: SapRules | str | None = None, split: str | None = None
) -> RecordReport:
    """Writes training records with SAP for the clips of a manifest; the file appears whole or not at all.

    Args:
        source: clips: a corpus folder or anything that `audiollm.data.manifest.open_manifest` opens.
        output: JSONL; paths of audio below its folder are written relative to it, others absolute.
        rules: what the metadata mean, or the name of a corpus for `rules_for`; None: the rules of the corpus that a
            clip's id begins with, or else the default ones.
        split: clips of this split only; None: all.

    Returns:
        How many records there are, and which clips were left out.

    Raises:
        ValueError: if there is no rule for any of the clips, or no corpus of that name.
        RecordError: if the source cannot be read.
    """
    report = RecordReport()
    records = records_by_rules(source, rules=rules, split=split, report=report)
    of_split = f" of split {split!r}" if split else ""
    write_records(records, output, report, if_none=f"no clip{of_split} has labels that rules know")
    return report


def records_by_rules(
    source: Any, *, rules: SapRules | str | None = None, split: str | None = None, report: RecordReport | None = None
) -> Iterator[dict[str, Any]]:
    """Makes training records with SAP of clips, see `label_by_rules`; `audio` is an absolute path.

    Yields:
        ``{"id", "audio", "text", "sap", "caption"?, "emotion"?, "sound_type", "duration_seconds"?, "split"?, …}``;
        the text of sounds and music is empty.
    """
    chosen = rules_for(rules) if isinstance(rules, str) else rules
    report = RecordReport() if report is None else report
    manifest = open_manifest(os.path.join(source, "manifest.jsonl") if _is_corpus(source) else source)
    for index in range(len(manifest)):
        where = manifest.where(index)
        try:
            metadata = manifest[index]
        except RecordError as error:
            report.leave_out(error.reason, where)
            continue
        if split is not None and (not isinstance(metadata, Mapping) or metadata.get("split") != split):
            continue
        try:
            record = _training_record(metadata, chosen or _rules_of(metadata), where, manifest.base_dir(index))
        except NoRuleError as error:
            report.leave_out(str(error), where)
            continue
        report.records[record["sound_type"]] += 1
        yield record


def training_record(metadata: Mapping[str, Any], sap: SapRecord, *, audio: Any, sound_type: str) -> dict[str, Any]:
    """A record for training a tokenizer: the clip's own metadata and what its SAP record says.

    Args:
        metadata: the clip; its id, duration, split, language, label and origin are kept.
        sap: the record.
        audio: what stands under ``audio``.
        sound_type: one of `audiollm.data.records.SOUND_TYPES`.
    """
    record: dict[str, Any] = {"audio": audio, "text": sap.linguistic_content or "", "sap": sap.to_dict()}
    if metadata.get("id") is not None:
        record = {"id": metadata["id"]} | record
    if sap.auditory_scenes.summary is not None:
        record["caption"] = sap.auditory_scenes.summary
    if sap.vocal_attributes is not None and sap.vocal_attributes.emotion is not None:
        record["emotion"] = sap.vocal_attributes.emotion
    record["sound_type"] = sound_type
    return record | {key: metadata[key] for key in _KEPT_KEYS if metadata.get(key) is not None}


def _rules_of(metadata: Any) -> SapRules:
    name = str(metadata.get("id")).partition("/")[0] if isinstance(metadata, Mapping) else ""
    return RULES.get(name, RULES["default"])


def _training_record(metadata: Any, rules: SapRules, where: str, base_dir: str | None) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        raise NoRuleError("not an object")
    sap = rules.record(metadata)
    problems = validate_sap(sap, duration_seconds=metadata.get("duration_seconds"), complete=False)
    if problems:
        raise NoRuleError(problems[0].partition(":")[0])
    try:
        audio = clip_part(metadata, where, base_dir)
    except RecordError as error:
        raise NoRuleError("no audio") from error
    if audio.path is None:
        raise NoRuleError("audio lies inside the record: write it to a file first")
    record = training_record(metadata, sap, audio=os.path.abspath(audio.path), sound_type=sound_type_of(metadata))
    return {"id": where} | record | audio.cut


def _is_corpus(source: Any) -> bool:
    return isinstance(source, str | os.PathLike) and os.path.isfile(os.path.join(source, "manifest.jsonl"))
