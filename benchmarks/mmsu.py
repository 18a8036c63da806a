"""MMSU: asks a model its questions and scores the replies; see ``questions/sets/mmsu.py``.

Other actions are ``check``, ``make``, ``predict``, ``export``, ``score`` and ``judge``. Examples::

    python benchmarks/mmsu.py --model mini --data MMSU --output-dir results/mmsu
    accelerate launch benchmarks/mmsu.py --model ours/checkpoint --data MMSU --output-dir results/mmsu
    python benchmarks/mmsu.py score --predictions theirs.json --mode strict --data MMSU
"""

from __future__ import annotations

from audiollm.benchmarks.harness.actions import run_action
from audiollm.benchmarks.questions.actions import question_actions

ACTIONS = question_actions("mmsu")

if __name__ == "__main__":
    run_action(ACTIONS, name="mmsu")
