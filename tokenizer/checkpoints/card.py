"""Model cards: the ``README.md`` of a model's folder, which says what it is made of, how, and how it is used.

Only names stand in it: of a path the last part, so that no folder of this machine, and nobody who works on it, is told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .folders import replaced_files

CARD_NAME = "README.md"
HERE = '"."'
"""What a card's example loads: the folder that holds the card. Uploading puts the repository's name in its place."""
Kind = Literal[
    "audio_llm", "adapter", "audio_tokenizer", "latent_tokenizer", "semantic_encoder", "feature_tokenizer", "decoder",
    "flow", "vocoder", "multi_stream_lm", "latent_diffusion",
]  # fmt: skip
TRAINING_DATA, EVALUATION_DATA = "training", "evaluation"  # roles
_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_FILES = (".jsonl", ".json", ".parquet", ".csv", ".tsv")
_PIPELINES: Mapping[Kind, str | None] = {
    "audio_llm": "audio-text-to-text", "adapter": "audio-text-to-text", "audio_tokenizer": "feature-extraction",
    "latent_tokenizer": "feature-extraction", "semantic_encoder": None,
    "feature_tokenizer": None, "decoder": "audio-to-audio", "flow": None, "vocoder": None,
    "multi_stream_lm": "audio-text-to-text",
    "latent_diffusion": "text-to-audio",
}  # fmt: skip
_TAGS: Mapping[Kind, list[str]] = {
    "audio_llm": ["audio-llm"], "adapter": ["audio-llm", "lora"], "audio_tokenizer": ["audio-tokenizer"],
    "latent_tokenizer": ["audio-tokenizer"], "semantic_encoder": ["audio-tokenizer"],
    "feature_tokenizer": ["audio-tokenizer"], "decoder": ["waveform-decoder"], "flow": ["waveform-decoder"],
    "vocoder": ["waveform-decoder"], "multi_stream_lm": ["audio-llm", "multi-stream"],
    "latent_diffusion": ["diffusion"],
}  # fmt: skip


@dataclass(frozen=True)
class Base:
    """What a model was made from.

    Attributes:
        role: such as ``text LLM``.
        source: folder or Hub id, as it was given.
        folder: where its card may lie; None: in ``source``, if that is a folder.
    """

    role: str
    source: str
    folder: Path | None = None

    @property
    def name(self) -> str:
        return public_name(self.source)

    @property
    def licence(self) -> str | None:
        """Its licence, as its card gives it; None where it has no card here, or none that names one."""
        path = (self.folder or Path(self.source)) / CARD_NAME
        if not path.is_file():
            return None
        licence = ModelCard.load(path, ignore_metadata_errors=True).data.get("license")
        return licence if isinstance(licence, str) else None


@dataclass(frozen=True)
class DataSource:
    """Records that a model was trained or scored on: their role, source, and facts such as sizes and fingerprints."""

    role: str
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return public_name(self.source)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model was trained.

    Attributes:
        data: what it learned from, and what it was scored on.
        weights: which they are, such as ``those after update 40, the last``.
        scores: of the evaluation that belongs to these weights, by name; empty if there was none.
        settings: of the run.
        facts: more about it, by name.
    """

    data: Sequence[DataSource]
    weights: str
    scores: Mapping[str, float]
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]


def write_card(
    folder: Path,
    kind: Kind,
    *,
    title: str,
    bases: Sequence[Base] | None,
    training: Training | None = None,
    note: str | None = None,
) -> None:
    """Writes a model's card, whole or not at all, in place of one that is there.

    Args:
        folder: the model's.
        kind: what it is; decides the example.
        title: name of the model.
        bases: what it was made from; None: nothing is known of that. A licence that all of their cards give is the
            model's, too.
        training: how; None: nothing was trained.
        note: what whoever uses it must know first.
    """
    licences = {base.licence for base in bases or ()}
    licence = next(iter(licences)) if len(licences) == 1 else None
    data = ModelCardData(
        license=licence,
        library_name="peft" if kind == "adapter" else "audiollm",
        pipeline_tag=_PIPELINES[kind],
        tags=["audiollm", *_TAGS[kind]],
        base_model=[base.source for base in bases or () if is_hub_id(base.source)] or None,
        datasets=_datasets(training) if training else None,
        model_name=title,
        eval_results=_results(training) if training else None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        kind=kind,
        title=title,
        bases=bases,
        licence=licence,
        training=training,
        note=note,
        settings=yaml.safe_dump(public_settings(training.settings), sort_keys=False, allow_unicode=True)
        if training
        else "",
        here=HERE,
    )
    with replaced_files(folder, CARD_NAME) as staging:
        (staging / CARD_NAME).write_text(str(card), encoding="utf-8")


def _datasets(training: Training) -> list[str] | None:
    return [one.source for one in training.data if one.role == TRAINING_DATA and is_hub_id(one.source)] or None


def _results(training: Training) -> list[EvalResult] | None:
    held_out = next((one for one in training.data if one.role == EVALUATION_DATA), None)
    if held_out is None:
        return None
    return [
        EvalResult(
            task_type="audio-text-to-text", dataset_type=held_out.name, dataset_name=held_out.name, metric_type=name,
            metric_value=value,
        )
        for name, value in training.scores.items()
        if "/" not in name
    ] or None  # fmt: skip


def is_hub_id(source: str) -> bool:
    """Whether a source is ``owner/name`` and no file or folder here."""
    return bool(_HUB_ID.fullmatch(source)) and not source.endswith(_FILES) and not os.path.exists(source)


def public_name(source: str) -> str:
    """A source without where it lies on this machine: a Hub id as it is, of a path or an address the last part."""
    if is_hub_id(source):
        return source
    return re.split(r"[/\\]", source.rstrip("/\\"))[-1] or source


def public_settings(settings: Any) -> Any:
    """Settings in which paths and addresses have become names; what is empty, or says where things go, is left out."""
    if isinstance(settings, Mapping):
        kept = {name: public_settings(value) for name, value in settings.items() if name not in _PLACES}
        return {name: value for name, value in kept.items() if value not in (None, {}, [])}
    if isinstance(settings, (list, tuple)):
        return [public_settings(value) for value in settings]
    return public_name(settings) if isinstance(settings, str) else settings


_PLACES = ("output_dir", "resume", "cache_dir", "trust_checkpoint")
