"""Predicted SAP records of a whole test set against its labels: matched by id, scored, written down."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from audiollm.benchmarks.judge.asking import JudgeSettings, told_cuts
from audiollm.benchmarks.judge.log import CUT
from audiollm.data.chat.base import ChatModel
from audiollm.data.files.atomic import atomic_write
from audiollm.data.manifest import Manifest, RecordError, open_manifest
from audiollm.data.sap.parsing import parse_sap
from audiollm.data.sap.record import SapError, SapRecord

from .judging import judge_sap
from .scoring import ReadPrediction, read_prediction, score_closed

logger = logging.getLogger(__name__)

PREDICTION_KEYS = ("prediction", "sap")


def score_sap(
    predictions: Any,
    references: Any,
    *,
    judge: ChatModel | None = None,
    judge_settings: JudgeSettings | None = None,
    normalizer: str = "english",
    unit: str = "word",
    progress: bool = False,
) -> dict[str, Any]:
    """Scores predicted records.

    Args:
        predictions: records ``{"id", "prediction"}``, the prediction as text or as an object; ``sap`` will do too.
        references: records ``{"id", "sap"}``, as ``audiollm label`` writes them. A reference without a prediction
            counts as one that says nothing.
        judge: scores the free texts; None: they are not scored.
        judge_settings: how the judge is asked.
        normalizer: of transcripts, see `audiollm.benchmarks.sap.scoring.score_closed`.
        unit: of transcripts, the same.
        progress: show a progress bar of the judge's votes.

    Returns:
        ``scores``; ``missing``, how many references have no prediction; ``repaired``, how many
        predictions were read after repairs, which the items name; ``data``, the fingerprints of both files;
        ``judge``, with its prompts' hashes and what it could not say; ``items``, one for each reference.

    Raises:
        RecordError: a record without id or of another kind, an id that is there twice or in no reference.
        ChatError: the judge does not answer.
    """
    true_manifest, said_manifest = open_manifest(references), open_manifest(predictions)
    true = {key: _reference(record, where) for key, record, where in _by_id(true_manifest)}
    said = {key: _prediction(record, where) for key, record, where in _by_id(said_manifest)}
    strangers = said.keys() - true.keys()
    if strangers:
        raise RecordError(said_manifest.name, f"{sorted(strangers)[0]!r} is the id of no reference")
    texts = [said.get(key, "") for key in true]
    records = list(true.values())
    items = [{"id": key, **_reading(read_prediction(text))} for key, text in zip(true, texts, strict=True)]
    result: dict[str, Any] = {
        "scores": score_closed(texts, records, normalizer=normalizer, unit=unit),
        "missing": len(true.keys() - said.keys()),
        "repaired": sum(item["readable"] and not item["valid"] for item in items),
        "settings": {"normalizer": normalizer, "unit": unit},
        "data": {"predictions": said_manifest.fingerprint, "references": true_manifest.fingerprint},
    }
    if judge is not None:
        settings = judge_settings or JudgeSettings()
        judgement = judge_sap(texts, records, judge, settings, progress=progress)
        result["scores"] |= judgement.scores
        facts = {"model": judgement.judge, "unreadable": judgement.unreadable, "undecided": judgement.undecided}
        result["judge"] = facts | {"prompts": judgement.prompts} | dataclasses.asdict(settings)
        num_cut = sum(sum(fields.values()) for fields in judgement.cut)
        result["judge"][f"n_{CUT}"] = num_cut
        if num_cut:
            logger.warning("%s; the items say of which fields", told_cuts(num_cut))
        items = [
            item | {"votes": votes} | ({CUT: cut} if cut else {})
            for item, votes, cut in zip(items, judgement.votes, judgement.cut, strict=True)
        ]
    return result | {"items": items}


def _reading(read: ReadPrediction) -> dict[str, Any]:
    """Whether and how a prediction was read."""
    reading = {"valid": read.valid, "readable": read.record is not None}
    return reading | ({"repairs": list(read.repairs)} if read.repairs else {})


def write_scores(result: Mapping[str, Any], output: str | os.PathLike[str]) -> None:
    """Writes what `score_sap` returns as JSON."""
    with atomic_write(output) as file:
        json.dump(result, file, indent=2, ensure_ascii=False)


def _by_id(manifest: Manifest) -> list[tuple[str, Mapping[str, Any], str]]:
    """Id, record and place of each record."""
    found: list[tuple[str, Mapping[str, Any], str]] = []
    seen: set[str] = set()
    for index in range(len(manifest)):
        record, where = manifest[index], manifest.where(index)
        if not isinstance(record, Mapping) or record.get("id") is None:
            raise RecordError(where, "has no id, by which predictions and references are matched")
        key = str(record["id"])
        if key in seen:
            raise RecordError(where, f"the id {key!r} is there twice")
        seen.add(key)
        found.append((key, record, where))
    if not found:
        raise RecordError(manifest.name, "holds no records")
    return found


def _reference(record: Mapping[str, Any], where: str) -> SapRecord:
    if record.get("sap") is None:
        raise RecordError(where, "has no sap")
    try:
        return parse_sap(record["sap"], where=where)
    except SapError as error:
        raise RecordError(where, "; ".join(error.problems)) from error


def _prediction(record: Mapping[str, Any], where: str) -> str:
    value = next((record[key] for key in PREDICTION_KEYS if record.get(key) is not None), None)
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        raise RecordError(where, f"has no {' or '.join(PREDICTION_KEYS)}, as text or as an object")
    return value
