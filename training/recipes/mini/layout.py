"""Paths of everything in the folder of a run of training/mini.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from audiollm.data.records import Split
from audiollm.training.loop.config import MODEL_FOLDER


@dataclass(frozen=True)
class MiniLayout:
    """The folder of a run and what is in it.

    Attributes:
        root: the run's folder.
    """

    root: Path

    def corpus(self, name: str) -> Path:
        """A built corpus."""
        return self.root / "corpora" / name

    def tokenizer_data(self, split: Split) -> Path:
        """Clips with texts, for the tokenizer."""
        return self.root / "data" / f"tokenizer_{split}.jsonl"

    def vocoder_data(self, split: Split) -> Path:
        """Clips in all languages, for the vocoder."""
        return self.root / "data" / f"vocoder_{split}.jsonl"

    def codes(self, split: Split) -> Path:
        """The tokenizer's clips, with codes."""
        return self.root / "data" / f"codes_{split}.jsonl"

    @property
    def more_speech(self) -> Path:
        """Clips of speech that only the LM learns from."""
        return self.root / "data" / "more_speech.jsonl"

    @property
    def more_codes(self) -> Path:
        """The same, with codes."""
        return self.root / "data" / "more_codes.jsonl"

    @property
    def flow_data(self) -> Path:
        """Clips with codes, for the flow model."""
        return self.root / "data" / "flow_train.jsonl"

    def lm_data(self, split: Split) -> Path:
        """Conversations, for the LM."""
        return self.root / "data" / f"lm_{split}.jsonl"

    @property
    def tokenizer_start(self) -> Path:
        """The tokenizer as a training checkpoint, with Whisper's text decoder."""
        return self.root / "tokenizer_start"

    @property
    def judge(self) -> Path:
        """The run of training/train_tokenizer.py in which that decoder learns to say what is in the codes."""
        return self.root / "judge"

    @property
    def tokenizer(self) -> Path:
        """The exported tokenizer, later with its decoder."""
        return self.root / "tokenizer"

    @property
    def vocoder(self) -> Path:
        """The vocoder's run."""
        return self.root / "vocoder"

    @property
    def flow(self) -> Path:
        """The flow model's run."""
        return self.root / "flow"

    @property
    def prepared(self) -> Path:
        """What train_decoder.py prepares of its clips."""
        return self.root / "prepared"

    @property
    def lm_start(self) -> Path:
        """The Audio-LLM before its training."""
        return self.root / "lm_start"

    @property
    def lm(self) -> Path:
        """The run of training/sft.py."""
        return self.root / "lm"

    @property
    def model(self) -> Path:
        """The finished model, in full precision."""
        return self.lm / MODEL_FOLDER

    @property
    def sampling(self) -> Path:
        """Ways to draw the codes that are spoken, and which is the best."""
        return self.root / "sampling.json"

    @property
    def evaluation(self) -> Path:
        """Held-out figures."""
        return self.root / "evaluation.json"

    @property
    def samples(self) -> Path:
        """Clips to listen to."""
        return self.root / "samples"

    @property
    def notes(self) -> Path:
        """Remarks on the run for the model card, if somebody wrote any."""
        return self.root / "notes.md"

    @property
    def package(self) -> Path:
        """What ships."""
        return self.root / "package"
