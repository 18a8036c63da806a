"""Multiple-choice questions about audio: read, asked, and scored by the published rules.

Reading order: ``items`` and ``base`` (what a question and a benchmark are) → ``data`` (questions read) → ``sets/``
(MMAU, MMAR, MMSU) with ``registry`` → ``asking/`` (replies of a model) → ``grading/`` (their scores) → ``run`` (all of
it) → ``actions`` (the command line's). Public names are imported on first use, so that scoring needs no model.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME_OF = {
    "PredictingSettings": "audiollm.benchmarks.questions.asking.predicting",
    "QuestionRun": "audiollm.benchmarks.questions.run",
    "benchmark_named": "audiollm.benchmarks.questions.registry",
    "load_questions": "audiollm.benchmarks.questions.data",
    "predict_questions": "audiollm.benchmarks.questions.asking.predicting",
    "run_questions": "audiollm.benchmarks.questions.run",
    "score_file": "audiollm.benchmarks.questions.grading.scoring",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names are {', '.join(__all__)}")
    return getattr(import_module(_HOME_OF[name]), name)
