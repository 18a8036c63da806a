"""The first stage: a text LLM learns to write what is heard, from reasoning codes that learn to be understood."""

from __future__ import annotations

from .stage_trainer import StageRun, StageTrainer


def make_supervised_trainer(run: StageRun) -> StageTrainer:
    """The trainer of ``stage: supervised``."""
    raise NotImplementedError
