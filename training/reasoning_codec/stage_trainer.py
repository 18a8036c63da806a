"""What the program asks of a stage; each stage's trainer says how its updates are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from accelerate import Accelerator
from torch import nn

from audiollm.tokenizer.quantizer.codebook import Codebook
from audiollm.tokenizer.quantizer.rvq import ResidualQuantizer
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.training.loop.checkpoints import Stateful

from .config import ReasoningCodecTrainingConfig


@dataclass(frozen=True)
class StageRun:
    """The surroundings of a stage.

    Attributes:
        accelerator: its processes.
        config: its settings.
        codec: what it starts from, see `opening.open_codec`.
    """

    accelerator: Accelerator
    config: ReasoningCodecTrainingConfig
    codec: ReasoningCodec


class StageTrainer(ABC):
    """Trains one stage, an update at a time.

    Attributes:
        model: the prepared module, for checkpoints.
        optimizer: the prepared optimizer.
        total_steps: updates of the whole run.
        data_metadata: fingerprints and sizes of the data, which must not change.
        held_out_metadata: of the held-out data; empty without any.
        extras: what a checkpoint holds beside model and optimizer.
    """

    model: nn.Module
    optimizer: Any
    total_steps: int
    data_metadata: dict[str, Any]
    held_out_metadata: Mapping[str, Any] = MappingProxyType({})
    extras: Mapping[str, Stateful] = MappingProxyType({})

    @abstractmethod
    def epoch(self, step: int) -> float:
        """How often the data has been trained on after an update."""

    @abstractmethod
    def batch(self, step: int) -> Any:
        """Reads this process's share of an update; called from another thread, one update ahead."""

    @abstractmethod
    def update(self, step: int, batch: Any) -> dict[str, Any]:
        """Makes an update; returns what its line says beside step and epoch: ``loss`` and ``audio_seconds`` at least.

        Raises:
            NonFiniteLossError: if a loss or the gradient is no number.
        """

    @abstractmethod
    def alarms(self, line: Mapping[str, Any]) -> list[str]:
        """What an update's line, or an evaluation's, gives reason to warn of."""

    @abstractmethod
    def evaluate(self, step: int, folder: Path) -> dict[str, Any]:
        """Measures on held-out data, ``loss`` among the figures; all processes call it.

        Leaves files in ``folder``.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes the codec, and what else the stage leaves beside its folder; all processes call it, one writes."""


def update_codebooks(quantizers: Iterable[ResidualQuantizer]) -> dict[str, Any]:
    """Moves the entries of all codebooks; returns the figures of each, as `CodebookMonitors` reads them.

    Once for each update and after the optimizer: codes of one update come of one codebook, however it is cut.
    """
    quantizers = list(quantizers)
    done = [update for one in quantizers for update in one.apply_update()]
    codebooks = [book for one in quantizers for book in one.codebooks if isinstance(book, Codebook)]
    return {
        "perplexity": [round(one.perplexity, 2) for one in done],
        "code_usage": [round(one.usage(), 4) for one in codebooks],
        "num_active_codes": [one.num_active for one in done],
        "num_restarted": [one.num_restarted for one in done],
    }
