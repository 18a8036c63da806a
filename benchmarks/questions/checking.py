"""Checks of a benchmark's data before a model spends time on them: version, questions, recordings."""

from __future__ import annotations

import logging
import statistics
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import AudioInfo, probe_audio, stream_audio

from .base import LoadedQuestions, QuestionBenchmark, first_problems
from .data import check_revision
from .items import QuestionItem

logger = logging.getLogger(__name__)

LONG_SECONDS = 30.0  # longer recordings are more than one segment of a Whisper encoder
MAX_PROBLEMS_SHOWN = 100


def check_questions(
    benchmark: QuestionBenchmark, loaded: LoadedQuestions, *, limit: int | None = None, num_threads: int = 4
) -> dict[str, Any]:
    """Checks questions and decodes every recording.

    Args:
        benchmark: whose questions they are.
        loaded: the questions, with their recordings.
        limit: look at the first so many recordings only.
        num_threads: recordings decoded at a time.

    Returns:
        Facts for JSON: the version, censuses of groups, numbers of options, durations (seconds), sample rates and
        channels, and the problems: ``audio_problems`` of recordings that cannot be used, by id, and ``problems``.
    """
    items = loaded.items
    with ThreadPoolExecutor(num_threads) as pool:
        looked_at = list(pool.map(_look, items[:limit]))
    infos = [result for result in looked_at if isinstance(result, AudioInfo)]
    audio_problems = {
        item.id: result for item, result in zip(items, looked_at, strict=False) if isinstance(result, str)
    }
    census = group_census(items)
    problems = [*loaded.problems, *_version_problems(benchmark, loaded, census), *_repeated_ids(items)]
    return {
        "benchmark": benchmark.name,
        **loaded.revision.to_dict(),
        "n_items": len(items),
        "n_withheld_answers": sum(not item.answer for item in items),
        "n_options": _counts(len(item.letters) for item in items),
        "groups": census,
        "baselines": baselines(items),
        "n_audio_checked": len(looked_at),
        "n_audio_problems": len(audio_problems),
        "audio_problems": dict(list(audio_problems.items())[:MAX_PROBLEMS_SHOWN]),
        "durations": _durations(infos),
        "sample_rates": _counts(info.sample_rate for info in infos),
        "channels": _counts(info.num_channels for info in infos),
        "formats": _counts(info.format for info in infos),
        "n_problems": len(problems),
        "problems": problems[:MAX_PROBLEMS_SHOWN],
    }


def require_usable(
    benchmark: QuestionBenchmark, loaded: LoadedQuestions, report: dict[str, Any], *, require_known_data: bool = False
) -> None:
    """Stops where the data cannot be used; warns of the rest.

    Raises:
        ValueError: if a recording cannot be used, ids repeat, or the version is not known although it must be.
    """
    check_revision(benchmark, loaded, require_known_data=require_known_data)
    repeated = list(_repeated_ids(loaded.items))
    if repeated:
        raise ValueError(first_problems(repeated))
    if report["audio_problems"]:
        shown = [f"{name}: {problem}" for name, problem in report["audio_problems"].items()]
        raise ValueError(
            f"{report['n_audio_problems']} of {report['n_audio_checked']} recordings cannot be used: "
            f"{first_problems(shown)}"
        )
    if report["problems"]:
        logger.warning("%s: %s", benchmark.title, first_problems(report["problems"], limit=3))


def group_census(items: Sequence[QuestionItem]) -> dict[str, dict[str, int]]:
    """How many questions each group has, by heading."""
    headings = dict.fromkeys(heading for item in items for heading in item.groups)
    return {heading: _counts(item.groups[heading] for item in items if heading in item.groups) for heading in headings}


def baselines(items: Sequence[QuestionItem]) -> dict[str, float]:
    """Shares of right answers of two who do not listen: one takes the first option, one any."""
    options = [[choice for choice in item.choices if choice is not None] for item in items]
    first = sum(own[0] == item.answer for own, item in zip(options, items, strict=True))
    chance = sum((item.answer in own) / len(own) for own, item in zip(options, items, strict=True))
    return {"first_option": first / len(items), "random": chance / len(items)}


def _look(item: QuestionItem) -> AudioInfo | str:
    """What a recording is, or what is wrong with it."""
    if not item.audio:
        return "no recording"
    try:
        info = probe_audio(item.audio)
        for _ in stream_audio(item.audio):
            pass  # a header may promise what cannot be decoded
    except AudioError as error:
        return str(error)
    return info


def _version_problems(
    benchmark: QuestionBenchmark, loaded: LoadedQuestions, census: dict[str, dict[str, int]]
) -> list[str]:
    problems: list[str] = []
    if loaded.revision.is_custom_set:
        return problems
    for heading, published in benchmark.published_census.items():
        found = {name: census.get(heading, {}).get(name, 0) for name in published}
        if found != published:
            problems.append(f"{heading}: {found} questions, but {dict(published)} are published")
    return problems


def _repeated_ids(items: Sequence[QuestionItem]) -> list[str]:
    counts = Counter(item.id for item in items)
    return [f"id {name!r} occurs {count} times" for name, count in counts.items() if count > 1]


def _durations(infos: Sequence[AudioInfo]) -> dict[str, float] | None:
    seconds = [info.duration_seconds for info in infos]
    if not seconds:
        return None
    return {
        "min": min(seconds),
        "median": statistics.median(seconds),
        "max": max(seconds),
        "total": sum(seconds),
        f"n_above_{LONG_SECONDS:.0f}_s": sum(value > LONG_SECONDS for value in seconds),
    }


def _counts(values: Any) -> dict[str, int]:
    return {str(value): count for value, count in Counter(values).most_common()}
