"""MMAU: asks a model its questions and scores the replies; see ``questions/sets/mmau.py``.

Other actions are ``check``, ``make``, ``predict``, ``export``, ``score`` and ``judge``. Examples::

    python benchmarks/mmau.py --model mini --data MMAU --output-dir results/mmau
    accelerate launch benchmarks/mmau.py --model ours/checkpoint --data MMAU --output-dir results/mmau
    python benchmarks/mmau.py score --predictions theirs.json --mode strict --data MMAU
"""

from __future__ import annotations

from audiollm.benchmarks.harness.actions import run_action
from audiollm.benchmarks.questions.actions import question_actions

ACTIONS = question_actions("mmau")

if __name__ == "__main__":
    run_action(ACTIONS, name="mmau")
