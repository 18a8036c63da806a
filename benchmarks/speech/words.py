"""Word error rates of what was heard of spoken recordings, under the rules in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audiollm.benchmarks.metrics import load_metric
from audiollm.benchmarks.metrics.repetition import is_looped
from audiollm.benchmarks.metrics.seed_tts_wer.pairs import TextPair, score_pairs
from audiollm.benchmarks.metrics.seed_tts_wer.text import LANGUAGES, mean
from audiollm.data.files.json_lines import write_json_lines

PAIRS_NAME = "pairs.jsonl"
UNSPACED_LANGUAGES = ("zh", "ja", "th", "yue", "lo", "my", "km")  # of these, characters are counted and not words


def word_figures(
    texts: Mapping[str, str], transcripts: Mapping[str, str], language: str, folder: Path
) -> dict[str, Any]:
    """Scores what was heard, and keeps the pairs as a file that can be scored again.

    Args:
        texts: what was to be said, by utterance.
        transcripts: what was heard; utterances whose recording is missing are not in it.
        language: of the texts. English and Mandarin are scored by the rule of seed-tts-eval, the mean over utterances;
            others have only the rate over all words.
        folder: for ``pairs.jsonl``.

    Returns:
        ``wer`` (by ``wer_rule``) of what was heard; ``wer_missing_as_wrong``, in which nothing was heard of what is
        missing; ``wer_capped``, the mean over utterances of which none counts as more than all wrong; ``looped``, the
        utterances in which the recognizer repeats itself; ``wer_over_words`` after Whisper's text normalization;
        details of the first. None where no words are known or were asked for.
    """
    pairs = [TextPair(name, transcripts[name], text) for name, text in texts.items() if name in transcripts]
    write_json_lines(folder / PAIRS_NAME, map(asdict, pairs))
    figures: dict[str, Any] = {"wer": None, "wer_missing_as_wrong": None, "wer_over_words": None, "wer_rule": None}
    figures |= {"wer_capped": None, "looped": [pair.id for pair in pairs if is_looped(pair.hypothesis, pair.reference)]}
    if not pairs:
        return figures | ({"wer_missing_as_wrong": 1.0} if texts else {})
    over_words = _over_words(pairs, language)
    if language not in LANGUAGES:
        capped = mean([min(rate, 1.0) for rate in _utterance_rates(pairs, language)])
        return figures | {
            "wer_capped": capped,
            "wer": over_words,
            "wer_over_words": over_words,
            "wer_rule": "errors over words",
        }
    scored = score_pairs(pairs, language)
    everything = [TextPair(name, transcripts.get(name, ""), text) for name, text in texts.items()]
    strict = score_pairs(everything, language)
    return {
        "wer": scored["wer_of_all"],
        "wer_missing_as_wrong": strict["wer_of_all"],
        "wer_capped": scored["wer_capped"],
        "looped": scored["looped"],
        "wer_over_words": over_words,
        "wer_rule": "seed-tts-eval, mean over utterances",
        "published": scored["averaged"]["printed"],
        "items": scored["items"],
        "pairs": PAIRS_NAME,
    }


def corpus_errors(pairs: Sequence[TextPair], language: str) -> dict[str, Any]:
    """Errors over words, after Whisper's text normalization; characters of languages that are written without spaces.

    Args:
        pairs: what was heard and what was said.
        language: of the texts.

    Returns:
        What the metric ``wer`` returns; its rate is None where no words were to be said.
    """
    found: dict[str, Any] = load_metric("wer").compute(
        predictions=[pair.hypothesis for pair in pairs],
        references=[pair.reference for pair in pairs],
        normalizer="english" if language == "en" else "basic",
        unit="character" if language in UNSPACED_LANGUAGES else "word",
    )
    return found


def _over_words(pairs: Sequence[TextPair], language: str) -> float | None:
    rate: float | None = corpus_errors(pairs, language)["wer"]
    return rate


def _utterance_rates(pairs: Sequence[TextPair], language: str) -> list[float]:
    rates = (_over_words([pair], language) for pair in pairs)
    return [rate for rate in rates if rate is not None]
