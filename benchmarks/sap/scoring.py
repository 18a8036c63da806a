"""Predicted Semantic-Acoustic Primitives against references: what can be scored without a judge.

Nothing is guessed. A prediction that cannot be read says nothing, so every field that its reference has counts as
wrong; a field that the reference does not have is not scored; a score that there is nothing to score for is absent.
Free texts need a judge: ``sap_judging``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from audiollm.benchmarks.metrics import load_metric
from audiollm.data.sap.parsing import parse_sap
from audiollm.data.sap.record import SapError, SapRecord
from audiollm.data.sap.repair import repair_sap

CLOSED_FIELDS = ("age", "gender", "emotion")


@dataclass(frozen=True)
class ReadPrediction:
    """A prediction as far as it can be read.

    Attributes:
        record: None if there is nothing to read in it.
        valid: whether it is what it should be, without any repair.
        repairs: what had to be changed in its form; why it cannot be read last, if it cannot.
    """

    record: SapRecord | None
    valid: bool
    repairs: Sequence[str] = ()


def read_prediction(text: str) -> ReadPrediction:
    """Reads a predicted record, repairing its form where that is possible; its content is left as it is."""
    try:
        return ReadPrediction(parse_sap(text), valid=True)
    except SapError:
        record, repairs = repair_sap(text)
        return ReadPrediction(record, valid=False, repairs=repairs)


def score_closed(
    predictions: Sequence[str], references: Sequence[SapRecord], *, normalizer: str = "english", unit: str = "word"
) -> dict[str, float]:
    """Scores transcripts, closed vocal attributes and classes of sound events.

    Args:
        predictions: SAP records as text, as a decoder writes them.
        references: the true record of each.
        normalizer: of the transcripts before words are compared: "english", "basic" (any language) or "none".
        unit: "word", or "character" for languages written without spaces.

    Returns:
        Shares in [0, 1] unless said otherwise; keys whose references are all empty are absent:

        - ``valid_json``: predictions that are valid as they are; ``readable``: those that are after repair.
        - ``age_accuracy``, ``gender_accuracy``, ``emotion_accuracy``: over references that have the attribute.
        - ``wer``: word errors over reference words of all speech, above 1 when much is inserted.
        - ``false_speech``: references without speech for which words are predicted.
        - ``event_precision``, ``event_recall``, ``event_f1``: classes of sound events, counted over the corpus.
        - ``num_records``, ``num_speech``, ``num_events``, ``num_age``, …: what the scores are over.

    Raises:
        ValueError: if there are no references or not as many as predictions.
    """
    if not references or len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions for {len(references)} references: give one for each, and some"
        )
    read = [read_prediction(text) for text in predictions]
    records = [prediction.record for prediction in read]
    scores = {
        "num_records": float(len(references)),
        "valid_json": sum(prediction.valid for prediction in read) / len(read),
        "readable": sum(record is not None for record in records) / len(read),
    }
    for name in CLOSED_FIELDS:
        scores |= _accuracy(name, records, references)
    scores |= _transcripts(records, references, normalizer, unit)
    return scores | _events(records, references)


def _accuracy(name: str, records: Sequence[SapRecord | None], references: Sequence[SapRecord]) -> dict[str, float]:
    """The share of right values of a closed attribute among the references that have it."""
    known = [number for number, reference in enumerate(references) if attribute(reference, name) is not None]
    if not known:
        return {}
    right = sum(attribute(records[number], name) == attribute(references[number], name) for number in known)
    return {f"{name}_accuracy": right / len(known), f"num_{name}": float(len(known))}


def attribute(record: SapRecord | None, name: str) -> str | None:
    """A vocal attribute; None if it is not known or there is no record."""
    if record is None or record.vocal_attributes is None:
        return None
    value: str | None = getattr(record.vocal_attributes, name)
    return value


def _transcripts(
    records: Sequence[SapRecord | None], references: Sequence[SapRecord], normalizer: str, unit: str
) -> dict[str, float]:
    said = [(record.linguistic_content or "") if record is not None else "" for record in records]
    spoken = [number for number, reference in enumerate(references) if reference.linguistic_content]
    silent = [number for number, reference in enumerate(references) if not reference.linguistic_content]
    scores = {"num_speech": float(len(spoken))}
    if spoken:
        rate = load_metric("wer").compute(
            predictions=[said[number] for number in spoken],
            references=[references[number].linguistic_content for number in spoken],
            normalizer=normalizer,
            unit=unit,
        )["wer"]
        if rate is not None:  # None: the transcripts hold punctuation only
            scores["wer"] = float(rate)
    if silent:
        scores["false_speech"] = sum(bool(said[number]) for number in silent) / len(silent)
    return scores


def _events(records: Sequence[SapRecord | None], references: Sequence[SapRecord]) -> dict[str, float]:
    """Precision and recall of event classes: a class that is predicted twice must be there twice."""
    num_right = num_predicted = num_true = 0
    for record, reference in zip(records, references, strict=True):
        predicted, true = event_classes(record), event_classes(reference)
        num_right += (predicted & true).total()
        num_predicted += predicted.total()
        num_true += true.total()
    scores = {"num_events": float(num_true)}
    if num_true:
        scores["event_recall"] = num_right / num_true
        scores["event_precision"] = num_right / num_predicted if num_predicted else 0.0
        # Precision and recall in one step: where nothing was predicted it is 0, and not 0 / 0.
        scores["event_f1"] = 2 * num_right / (num_predicted + num_true)
    return scores


def event_classes(record: SapRecord | None) -> Counter[str]:
    """How often each class of sound event is in a record; spelling is made alike ("Dog_Bark" is "dog bark")."""
    if record is None:
        return Counter()
    labels = (event.label for event in record.auditory_scenes.events)
    return Counter(" ".join(label.replace("_", " ").replace("-", " ").lower().split()) for label in labels)
