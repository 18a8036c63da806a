"""MMAR: asks a model its questions and scores the replies; see ``questions/sets/mmar.py``.

Other actions are ``check``, ``make``, ``predict``, ``export``, ``score`` and ``judge``. Examples::

    python benchmarks/mmar.py --model mini --data MMAR --output-dir results/mmar
    accelerate launch benchmarks/mmar.py --model ours/checkpoint --data MMAR --output-dir results/mmar
    python benchmarks/mmar.py score --predictions theirs.json --mode strict --data MMAR
"""

from __future__ import annotations

from audiollm.benchmarks.harness.actions import run_action
from audiollm.benchmarks.questions.actions import question_actions

ACTIONS = question_actions("mmar")

if __name__ == "__main__":
    run_action(ACTIONS, name="mmar")
