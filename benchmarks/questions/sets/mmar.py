"""MMAR (Ma et al., 2025, arXiv:2505.13032): questions about recordings that mix sound, music and speech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from audiollm.benchmarks.questions.grading.letter_reading import letter_of_option
from audiollm.benchmarks.questions.grading.token_benchmark import TokenBenchmark
from audiollm.benchmarks.questions.items import CustomQuestion


class Mmar(TokenBenchmark):
    """MMAR: 1,000 questions in four layers of difficulty."""

    name = "mmar"
    title = "MMAR"
    prediction_key = "answer_prediction"
    audio_key = "audio_path"
    audio_folder = "audio"
    file_names = ("MMAR-meta.jsonl", "MMAR-meta.json")
    known_revisions: ClassVar[Mapping[str, str]] = {"1c9a343e7bebf103": "meta of 2026, with rubrics"}
    headings: ClassVar[Mapping[str, tuple[str, Sequence[str]]]] = {
        "Modality-wise Accuracy": (
            "modality",
            (
                "sound",
                "music",
                "speech",
                "mix-sound-music",
                "mix-sound-speech",
                "mix-music-speech",
                "mix-sound-music-speech",
            ),
        ),
        "Category-wise Accuracy": (
            "category",
            ("Signal Layer", "Perception Layer", "Semantic Layer", "Cultural Layer"),
        ),
        "Sub-category-wise Accuracy": ("sub-category", ()),
    }
    other_groups = ("language",)

    def record_of(self, custom: CustomQuestion) -> dict[str, Any] | None:
        if custom.sound_type == "mix":  # of what, it does not say
            return None
        layer = "Semantic Layer" if custom.field == "linguistic_content" else "Perception Layer"
        return {
            "id": custom.id, "audio_path": custom.audio, "question": custom.question,
            **self.choice_fields(custom.choices), "answer": custom.answer,
            "modality": custom.sound_type, "category": layer, "sub-category": custom.field,
            "language": custom.language, "source": custom.source, "url": "", "timestamp": "",
        }  # fmt: skip

    def letter(self, reply: str, choices: Sequence[str]) -> str | None:
        return letter_of_option(reply, choices)
