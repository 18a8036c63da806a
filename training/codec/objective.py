"""What the trainer knows of a kind of tokenizer: there and back with its losses, where codes begin, what they tell."""
# Shapes: B segments, N samples, K codebooks, T frames.

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from audiollm.tokenizer.zoo.codec import CodecTokenizer
from audiollm.training.loop.checkpoints import Stateful

from .config import CodecTrainingConfig


class CodecObjective(nn.Module, ABC):
    """The tokenizer there and back as one forward pass, which is what data parallelism and mixed precision wrap.

    Args:
        model: the tokenizer, on the run's device.
        config: the run.
        first_step_with_codes: features pass as they are before.
    """

    def __init__(self, model: CodecTokenizer, config: CodecTrainingConfig, first_step_with_codes: int) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.first_step_with_codes = first_step_with_codes

    @property
    def extras(self) -> Mapping[str, Stateful]:
        """What a checkpoint holds of it beside the weights."""
        return {}

    @abstractmethod
    def forward(self, waveforms_BN: Tensor, positions_B: Tensor, with_codes: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Gives segments back.

        Args:
            waveforms_BN: of whole frames.
            positions_B: place of each in the update.
            with_codes: whether features become codes.

        Returns:
            What comes back, ``[B, N]``, and losses of its own, by name, weighted.
        """

    @abstractmethod
    def start(self, waveforms_BN: Tensor) -> None:
        """Scales fresh weights to real sound."""

    def begin_codes(self, segments: Callable[[], list[Tensor]]) -> None:
        """Called before the first update with codes.

        Args:
            segments: cuts some out of the recordings, ``[B, N]`` each, on the CPU.
        """

    @abstractmethod
    def after_update(self, with_codes: bool) -> dict[str, Any]:
        """What else belongs to an update; returns what its line says of the codes. All processes call it."""

    @abstractmethod
    def given_back(self, waveform_1N: Tensor, with_codes: bool) -> tuple[Tensor, Tensor | None]:
        """What comes back of a recording, ``[1, N]`` or longer, and its codes, ``[K, T]``."""

    @abstractmethod
    def collapse(self, line: Mapping[str, Any]) -> str | None:
        """What is wrong with the codes of an evaluation, and what helps; None: nothing."""
