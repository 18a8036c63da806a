"""Multiple-choice questions about audio: read, asked, and scored by the published rules.

Reading order: ``items`` and ``base`` (what a question and a benchmark are) → ``data`` (questions read) → ``sets/``
(MMAU, MMAR, MMSU) with ``registry`` → ``asking/`` (replies of a model) → ``grading/`` (their scores) → ``run`` (all of
it) → ``actions`` (the command line's). Public names are imported on first use, so that scoring needs no model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "asking.predicting": ["PredictingSettings", "predict_questions"],
        "data": ["load_questions"],
        "grading.scoring": ["score_file"],
        "registry": ["benchmark_named"],
        "run": ["QuestionRun", "run_questions"],
    },
)
