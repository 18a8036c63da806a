"""``audiollm bench``: the benchmarks by name, and where what can be done with each is written.

The modules named here hold ``ACTIONS``, see ``audiollm.benchmarks.harness.actions``. The action ``run`` is what
``audiollm bench NAME --option …`` does; other actions are named: ``audiollm bench mmau score --option …``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

BENCHMARKS = {
    "mmau": "audiollm.benchmarks.mmau",
    "mmar": "audiollm.benchmarks.mmar",
    "mmsu": "audiollm.benchmarks.mmsu",
    "transcription": "audiollm.benchmarks.transcription",
    "seed-tts": "audiollm.benchmarks.seed_tts",
    "reconstruction": "audiollm.benchmarks.reconstruction",
    "attribute-control": "audiollm.benchmarks.attribute_control",
    "clustering": "audiollm.benchmarks.clustering",
    "probing": "audiollm.benchmarks.sound_classes",
    "stability": "audiollm.benchmarks.stability",
}

SUMMARIES = {
    "mmau": "questions about speech, sound and music",
    "mmar": "questions that need several steps of reasoning",
    "mmsu": "questions about how something is said",
    "transcription": "writing down what is said in recordings",
    "seed-tts": "speaking texts in the voices of prompts",
    "reconstruction": "what codes keep of words, voice and quality",
    "attribute-control": "speaking with the gender, age, emotion, pitch and speed that are asked for",
    "clustering": "whether codes in a file tell kinds of sound apart",
    "probing": "the same of recordings, with a classifier",
    "stability": "what noise and the like change in the codes",
}


def benchmark_actions(benchmark: str) -> Mapping[str, Callable[..., None]]:
    """What can be done with a benchmark, by name; its module is imported when it is asked for."""
    actions: Mapping[str, Callable[..., None]] = import_module(BENCHMARKS[benchmark]).ACTIONS
    return actions


def run_bench(arguments: Sequence[str]) -> None:
    """Runs what ``audiollm bench …`` says.

    Args:
        arguments: what follows ``bench``.
    """
    parser = argparse.ArgumentParser(
        prog="audiollm bench",
        description="Score a model, or predictions, on a benchmark.",
        epilog="audiollm bench BENCHMARK --help tells what can be done with each.",
        allow_abbrev=False,
    )
    benchmarks = parser.add_subparsers(title="benchmarks", dest="benchmark", metavar="BENCHMARK", required=True)
    for name, summary in SUMMARIES.items():
        benchmarks.add_parser(name, help=summary, add_help=False)
    benchmark = parser.parse_args(list(arguments[:1])).benchmark
    from audiollm.benchmarks.harness.actions import run_action

    run_action(benchmark_actions(benchmark), name=f"audiollm bench {benchmark}", arguments=arguments[1:])
