"""UniAudio-Token, LoSATok and ReasoningCodec in one table: a study of ``audiollm compare``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.benchmarks.comparison.page import JSON
from audiollm.data.files.json_document import write_json
from audiollm.mini import MINI
from audiollm.training.recipes.comparison.comparing import compare_tokenizers

from .codecs import ONCE, WITH_FILM, Codecs
from .data import BENCHMARK, HELD_OUT, TRAIN, ClipData
from .language_models import REASONING, RECONSTRUCTION, UNIAUDIO_TOKEN

TITLE = "UniAudio-Token, LoSATok and ReasoningCodec at a small scale"
STUDY = "study.json"  # which is YAML, too


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """What the study measures."""

    speech: str = "corpus:asterisk"
    """Recordings with text and split, of which those of split test are reconstructed."""

    sounds: str = "corpus:game-sounds"
    """Recordings with classes and splits."""

    max_clips: int = 40
    """Of the speech."""

    asr: str = "whisper-base"
    """That writes down what is reconstructed, or none."""

    similarity: str = "resemblyzer"
    """That hears whether the voice is kept, or none."""

    mos: str = "dnsmos"
    """That predicts opinions, or none."""

    downstream_steps: int = 150
    """Updates of the small LLM that is trained on each tokenizer of one rate."""


def compare_side_by_side(
    data: ClipData,
    codecs: Codecs,
    settings: TableSettings,
    seeds: Sequence[int],
    folder: Path,
    tell: Callable[[str], None],
    num_threads: int | None,
) -> dict[str, Any]:
    """Runs the study, or goes on with it.

    Args:
        data: the LLM's questions.
        codecs: whose LoSATok and ReasoningCodec of the first seed are compared.
        settings: what is measured.
        seeds: of the LLM.
        folder: of the experiment; the study is in ``table/``.
        tell: hears of progress.
        num_threads: CPU threads; None: all.

    Returns:
        What `audiollm.benchmarks.comparison.page` wrote as JSON, without its cells.
    """
    place = folder / "table"
    place.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, str | Path] = {
        UNIAUDIO_TOKEN: MINI,
        "LoSATok": codecs.losatok(),
        "ReasoningCodec": codecs.reasoning_codec(WITH_FILM, ONCE),
        "reasoning codes": codecs.group(WITH_FILM, ONCE, REASONING),
        "reconstruction codes": codecs.group(WITH_FILM, ONCE, RECONSTRUCTION),
    }
    study: dict[str, Any] = {
        "title": TITLE,
        "tokenizers": {name: _from(place, source) for name, source in kinds.items()},
        "data": {
            "speech": {"path": _from(place, settings.speech), "split": "test", "max_clips": settings.max_clips},
            "sounds": {"path": _from(place, settings.sounds), "min_clips_per_class": 6},
        },
        "measures": {
            "codes": ["speech", "sounds"],
            "speed": {"data": "speech", "rounds": 3, "max_clips": 8},
            "reconstruction": {
                "data": "speech",
                "metrics": ["stoi", "mel_distance"],
                "asr": settings.asr,
                "similarity": settings.similarity,
                "mos": settings.mos,
            },
            "classes": {"data": "sounds", "num_seeds": 5},
        },
        "downstream": {
            "llm": "small",
            "seeds": list(seeds),
            "understanding": {
                "train_data": _from(place, data.questions(TRAIN)),
                "eval_data": _from(place, data.questions(HELD_OUT)),
                BENCHMARK: _from(place, data.question_set(HELD_OUT)),
                "max_steps": settings.downstream_steps,
                "settings": {
                    "global_batch_size": 16,
                    "micro_batch_size": 8,
                    "learning_rate": 0.001,
                    "warmup_ratio": 0.08,
                    "weight_decay": 0.1,
                    "on_too_long": "skip",
                },
            },
        },
    }
    if num_threads is not None:
        study["num_threads"] = num_threads
    write_json(place / STUDY, study)
    compare_tokenizers(place / STUDY, place, tell=tell)
    document: dict[str, Any] = json.loads((place / JSON).read_text(encoding="utf-8"))
    return {name: value for name, value in document.items() if name not in ("cells", "published")}


def _from(folder: Path, source: str | Path) -> str:
    """A path as a file in a folder names it; what is none stays as it is."""
    return os.path.relpath(source, folder) if isinstance(source, Path) or os.path.exists(source) else source
