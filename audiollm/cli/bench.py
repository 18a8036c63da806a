"""``audiollm bench``: the benchmarks by name, and what can be done with each.

``BENCHMARKS`` is the registry. Each entry maps an action to a function, whose signature is the interface and whose
docstring is the help, as with the other commands; every parameter is an option (``--data FILE``). The action ``run`` is
what ``audiollm bench NAME --option …`` does; other actions are named: ``audiollm bench mmau score --option …``.
"""

from __future__ import annotations

from collections.abc import Callable

from . import benchmarks_speech as speech
from .benchmarks_judging import judging_actions
from .benchmarks_questions import question_actions

Actions = dict[str, Callable[..., None]]

BENCHMARKS: dict[str, Actions] = {
    "mmau": question_actions("mmau") | judging_actions("mmau"),
    "mmar": question_actions("mmar") | judging_actions("mmar"),
    "mmsu": question_actions("mmsu") | judging_actions("mmsu"),
    "seed-tts": {
        "run": speech.run_seed_tts,
        "wer": speech.score_seed_tts_pairs,
        "sim": speech.score_seed_tts_voices,
    },
    "reconstruction": {"run": speech.run_reconstruction},
    "attribute-control": {"run": speech.run_attribute_control},
    "clustering": {"run": speech.cluster},
    "probing": {"run": speech.run_probing},
    "stability": {"run": speech.run_stability},
}
