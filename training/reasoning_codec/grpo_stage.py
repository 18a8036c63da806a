"""The second stage: what the text LLM writes of a clip is rewarded, and codes and LLM learn of it."""

from __future__ import annotations

from accelerate import Accelerator

from audiollm.training.loop.run import RunSummary
from audiollm.training.loop.stopping import StopRequest

from .config import ReasoningCodecTrainingConfig


def train_by_rewards(accelerator: Accelerator, config: ReasoningCodecTrainingConfig, stop: StopRequest) -> RunSummary:
    """Runs ``stage: grpo``."""
    raise NotImplementedError
