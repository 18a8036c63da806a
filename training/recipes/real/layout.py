"""Paths of everything in the folder of a run of training/real.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from audiollm.training.loop.config import MODEL_FOLDER

Variant = Literal["pretrained", "random", "random_lora"]
Moment = Literal["before", "after"]


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        variant: what it starts from, and what of it is trained.
        seed: of new weights and of the order of the data.
    """

    variant: Variant
    seed: int

    def __str__(self) -> str:
        return f"{self.variant}-{self.seed}"


@dataclass(frozen=True)
class RealLayout:
    """The folder of a run and what is in it.

    Attributes:
        root: the run's folder.
    """

    root: Path

    @property
    def settings(self) -> Path:
        """What decides the data and the models."""
        return self.root / "real.json"

    def corpus(self, name: str) -> Path:
        """A built corpus."""
        return self.root / "corpora" / name

    @property
    def tokenizer(self) -> Path:
        """The audio tokenizer."""
        return self.root / "audio_tokenizer"

    @property
    def codebook_fit(self) -> Path:
        """How well its codebook covers the recordings."""
        return self.root / "codebook_fit.json"

    @property
    def codes(self) -> Path:
        """Codes of all clips."""
        return self.root / "data" / "codes.jsonl"

    @property
    def train(self) -> Path:
        """Conversations to train on."""
        return self.root / "data" / "train.jsonl"

    @property
    def held_out(self) -> Path:
        """Conversations that no model sees in its training."""
        return self.root / "data" / "held_out.jsonl"

    @property
    def texts(self) -> Path:
        """Held-out texts, a line each."""
        return self.root / "data" / "held_out_texts.txt"

    @property
    def data_facts(self) -> Path:
        """How many clips and records there are."""
        return self.root / "data" / "facts.json"

    def trial(self, trial: Trial) -> Path:
        """Everything of one training."""
        return self.root / "trials" / trial.variant / str(trial.seed)

    def start(self, trial: Trial) -> Path:
        """The extended model before its training."""
        return self.trial(trial) / "start"

    def start_facts(self, trial: Trial) -> Path:
        """How large it is."""
        return self.trial(trial) / "start.json"

    def run(self, trial: Trial) -> Path:
        """The run of training/sft.py."""
        return self.trial(trial) / "sft"

    def model(self, trial: Trial) -> Path:
        """The trained model; adapters are merged into it."""
        return self.run(trial) / MODEL_FOLDER

    def scores(self, trial: Trial, moment: Moment) -> Path:
        """Held-out figures of the model, before or after its training."""
        return self.trial(trial) / f"{moment}.json"

    @property
    def results(self) -> Path:
        """All figures of all trainings."""
        return self.root / "results.json"
