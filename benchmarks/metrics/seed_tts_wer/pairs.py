"""Scoring texts that were heard against texts that were to be said, from one file to one result file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.benchmarks.metrics.repetition import is_looped
from audiollm.data.files.json_lines import read_numbered_lines

from .text import HALF, UNREADABLE_WHEN_AVERAGED, Language, UtteranceErrors, mean, percent, utterance_errors

RULE = "seed-tts-eval"


@dataclass(frozen=True)
class TextPair:
    """One utterance: what a recognizer heard, and what was to be said."""

    id: str
    hypothesis: str
    reference: str


def read_pairs(path: str | os.PathLike[str]) -> list[TextPair]:
    """Reads pairs from JSONL, from a JSON list, or from a JSON object with such a list under ``rows``.

    An object has ``reference`` and ``hypothesis`` or ``hypothesis_raw`` (where both are there, the raw one is what the
    recognizer gave, and is taken), and an ``id``, in place of which its number from 0 stands where there is none.

    Raises:
        ValueError: the file is not of that form (naming line or row and field), holds nothing, or an id occurs twice.
        OSError: it cannot be read.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    rows = _json_rows(path, text)
    pairs = [_pair(row, where, index) for index, (where, row) in enumerate(rows)]
    if not pairs:
        raise ValueError(f"{path} holds no pairs; give objects with id, hypothesis and reference")
    seen: dict[str, str] = {}
    for (where, _), pair in zip(rows, pairs, strict=True):
        if pair.id in seen:
            raise ValueError(f"{where}: id {pair.id!r} is there twice, first in {seen[pair.id]}; give each its own")
        seen[pair.id] = where
    return pairs


def _json_rows(path: str | os.PathLike[str], text: str) -> list[tuple[str, Any]]:
    """Every row with the place it comes from."""
    try:
        whole = json.loads(text)
    except ValueError:
        return [(f"{path}:{number}", row) for number, row in read_numbered_lines(path)]
    if isinstance(whole, dict) and "rows" in whole:
        whole = whole["rows"]
    if isinstance(whole, dict):
        whole = [whole]
    if not isinstance(whole, list):
        raise ValueError(f"{path} holds a {type(whole).__name__}; give a list of pairs, or JSONL")
    return [(f"{path}, row {number}", row) for number, row in enumerate(whole)]


def _pair(row: Any, where: str, index: int) -> TextPair:
    if not isinstance(row, dict):
        raise ValueError(f"{where} is a {type(row).__name__}; give an object with id, hypothesis and reference")
    hypothesis = "hypothesis_raw" if "hypothesis_raw" in row else "hypothesis"
    identifier = row.get("id", index)
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    fields = {"id": identifier, hypothesis: row.get(hypothesis), "reference": row.get("reference")}
    for name, value in fields.items():
        if not isinstance(value, str):
            found = "is missing" if name not in row else f"is {value!r}"
            raise ValueError(f"{where}: {name} {found}; give a text (an empty one if nothing was heard)")
    return TextPair(*fields.values())


def score_pairs(pairs: Sequence[TextPair], language: Language) -> dict[str, Any]:
    """Scores all pairs.

    Args:
        pairs: at least one.
        language: ``en`` or ``zh``.

    Returns:
        ``wer``, the published figure, with its details in ``averaged``: the mean over the utterances that the published
        averaging step can read; ``wer_of_all``, the same without that limit; ``corpus_level``, another number: errors
        over words; ``rows`` with the texts as compared and all counts; ``items`` with index, id and ``wer`` alone. An
        utterance whose reference holds nothing to be compared has no rate: its ``wer`` is None, it is in no mean, and
        ``num_empty_references`` counts it. ``wer_capped`` stands beside the published figure: no utterance counts as
        more than all wrong. ``looped`` names the utterances in which the recognizer repeats itself.
    """
    found = [utterance_errors(pair.hypothesis, pair.reference, language) for pair in pairs]
    rows = [_row(pair, errors, language) for pair, errors in zip(pairs, found, strict=True)]
    items = [
        {"index": index, "id": row["id"], "wer": row["wer"], "wer_capped": row["wer_capped"], "looped": row["looped"]}
        for index, row in enumerate(rows)
    ]
    scored = [(pair, errors) for pair, errors in zip(pairs, found, strict=True) if errors is not None]
    averaged = _averaged(scored)
    return {
        "benchmark": "seed-tts",
        "rule": RULE,
        "language": language,
        "n_items": len(pairs),
        "num_empty_references": len(pairs) - len(scored),
        "wer": averaged["mean_wer"],
        "wer_of_all": mean([errors.wer for _, errors in scored]),
        "wer_capped": mean([min(errors.wer, 1.0) for _, errors in scored]),
        "looped": [row["id"] for row in rows if row["looped"]],
        "averaged": averaged,
        "corpus_level": _corpus_level([errors for _, errors in scored]),
        "apostrophes_removed_too": mean(
            [row["wer_if_apostrophe_removed_too"] for row in rows if row["wer_if_apostrophe_removed_too"] is not None]
        ),
        "items": items,
        "rows": rows,
    }


def _row(pair: TextPair, errors: UtteranceErrors | None, language: Language) -> dict[str, Any]:
    row = {
        "id": pair.id,
        "hypothesis_raw": pair.hypothesis,
        "reference": pair.reference,
        "looped": is_looped(pair.hypothesis, pair.reference),
    }
    if errors is None:
        return row | {"wer": None, "wer_capped": None, "wer_if_apostrophe_removed_too": None}
    others = utterance_errors(pair.hypothesis, pair.reference, language, keep_apostrophes=False)
    return row | {
        "hypothesis": errors.hypothesis,
        "hypothesis_normalised": errors.hypothesis_normalised,
        "reference_normalised": errors.reference_normalised,
        "wer": errors.wer,
        "wer_capped": min(errors.wer, 1.0),
        "hits": errors.hits,
        "substitutions": errors.substitutions,
        "deletions": errors.deletions,
        "insertions": errors.insertions,
        "wer_if_apostrophe_removed_too": None if others is None else others.wer,
        "sub_ratio": errors.substitutions / errors.num_ratio_words,
        "del_ratio": errors.deletions / errors.num_ratio_words,
        "ins_ratio": errors.insertions / errors.num_ratio_words,
    }


def _averaged(scored: Sequence[tuple[TextPair, UtteranceErrors]]) -> dict[str, Any]:
    """What the published averaging step prints, over the utterances that it can read."""

    def is_readable(pair: TextPair) -> bool:
        return not any(sign in text for sign in UNREADABLE_WHEN_AVERAGED for text in (pair.hypothesis, pair.reference))

    rates = {pair.id: errors.wer for pair, errors in scored if is_readable(pair)}
    low = [rate for rate in rates.values() if rate <= HALF]
    average = mean(list(rates.values()))
    return {
        "ids": list(rates),
        "left_out": [pair.id for pair, _ in scored if pair.id not in rates],
        "printed": None if average is None else f"WER: {percent(average)}",
        "mean_wer": average,
        "mean_wer_at_most_half": mean(low),
        "n_above_half": len(rates) - len(low),
    }


def _corpus_level(scored: Sequence[UtteranceErrors]) -> dict[str, Any]:
    num_errors = sum(errors.num_errors for errors in scored)
    num_words = sum(errors.num_reference_words for errors in scored)
    return {"errors": num_errors, "reference_words": num_words, "wer": num_errors / num_words if num_words else None}
