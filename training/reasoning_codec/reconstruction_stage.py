"""The last stage: reconstruction codes and the flow decoder learn, the reasoning branch is frozen."""

from __future__ import annotations

from .stage_trainer import StageRun, StageTrainer


def make_reconstruction_trainer(run: StageRun) -> StageTrainer:
    """The trainer of ``stage: reconstruction``."""
    raise NotImplementedError
