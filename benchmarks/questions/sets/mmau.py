"""MMAU (Sakshi et al., 2024, arXiv:2410.19168): questions about sound, music and speech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from audiollm.benchmarks.questions.grading.letter_reading import letter_among_four
from audiollm.benchmarks.questions.grading.token_benchmark import TokenBenchmark
from audiollm.benchmarks.questions.items import CustomQuestion


class Mmau(TokenBenchmark):
    """MMAU test-mini: 1,000 questions. The answers of its test set (9,000) are withheld."""

    name = "mmau"
    title = "MMAU"
    prediction_key = "model_output"
    audio_key = "audio_id"
    audio_folder = "test-mini-audios"
    file_names = ("mmau-test-mini.json", "mmau-test.json")
    known_revisions: ClassVar[Mapping[str, str]] = {"9f18fda99f8dbc2b": "test-mini of 2025-08-09"}
    headings: ClassVar[Mapping[str, tuple[str, Sequence[str]]]] = {
        "Task-wise Accuracy": ("task", ("sound", "music", "speech")),
        "Difficulty-wise Accuracy": ("difficulty", ("easy", "hard", "medium")),
        "Sub-category-wise Accuracy": ("sub-category", ()),
    }
    other_groups = ("category",)

    def record_of(self, custom: CustomQuestion) -> dict[str, Any] | None:
        if custom.sound_type == "mix":
            return None
        # Nobody has judged how hard a question of one's own is: that is told by the number of options.
        difficulty = {2: "easy", 3: "medium", 4: "hard"}[len(custom.choices)]
        return {
            "id": custom.id, "audio_id": custom.audio, "question": custom.question,
            **self.choice_fields(custom.choices), "answer": custom.answer,
            "dataset": custom.source, "task": custom.sound_type, "split": "test-mini",
            "category": "Information Extraction", "sub-category": custom.field, "difficulty": difficulty,
        }  # fmt: skip

    def letter(self, reply: str, choices: Sequence[str]) -> str | None:
        return letter_among_four(reply)
