"""Evaluation of one trained variant of the experiment on held-out clips: codes, gate, and the words it keeps.

A program of its own, so that variants can be evaluated beside each other::

    python -m audiollm.training.recipes.sap_sae.evaluation \
        --run runs/sap_sae/runs/sap/0 --data runs/sap_sae/data --output figures.json
"""
# Shapes: N samples.

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from audiollm.benchmarks.codes.clustering import cluster_codes
from audiollm.benchmarks.codes.features import ClipFeatures, encode_clips
from audiollm.benchmarks.codes.probing import probe_by_parts
from audiollm.data.audio.degradation import coloured_noise
from audiollm.data.conversation.audio_parts import parse_audio_part
from audiollm.data.files.json_document import write_json
from audiollm.program import run_program
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.supervision.model import SupervisedTokenizer
from audiollm.training.audio_tokenizer.evaluation import evaluate_tokenizer
from audiollm.training.audio_tokenizer.records import TokenizerRecords
from audiollm.training.audio_tokenizer.targets import parse_targets
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.record import read_metrics
from audiollm.training.recipes.gates import has_gate, mean_gate_of_clips, mean_gate_of_mixes
from audiollm.training.recipes.sap_sae.data import (
    ExperimentData,
    evenly_of_each,
    is_english_speech,
    label_of,
    read_data,
    spread,
)

STAGES = ("stage1", "stage2")
MAX_CLIP_SECONDS = 10.0  # of what is encoded for probes and gates
MAX_NEW_TOKENS = {"asr": 80, "sap": 200}
NOISE_LEVEL = 0.1  # root mean square, of full scale 1
NOISE_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class SapSaeEvaluationConfig:
    """Evaluation of one variant with one seed."""

    run: str
    """Folder with ``stage1`` (unless there was none) and ``stage2``."""

    data: str
    """Folder with train.jsonl, dev.jsonl and test.jsonl."""

    output: str
    """JSON file for the figures."""

    speech_clips: int = 120
    """Held-out clips of English speech whose words are counted."""

    sap_clips: int = 20
    """Held-out clips of each sound type that a description is written for."""

    gate_clips: int = 40
    """Held-out clips of each sound type whose gate is measured; half as many mixes."""

    type_clips: int = 80
    """Clips of each sound type that the probe of sound types learns from, and at most as many that it is judged on."""

    seed: int = 0
    """For noise."""


def evaluate(config: SapSaeEvaluationConfig) -> dict[str, Any]:
    """Measures everything and writes ``config.output``; returns what it holds."""
    started = time.perf_counter()
    run, data = Path(config.run), read_data(Path(config.data))
    model = SupervisedTokenizer.from_pretrained(run / "stage2" / MODEL_FOLDER)
    figures: dict[str, Any] = figures_of_codes(model.tokenizer, data, config.type_clips)
    figures["gates"] = figures_of_gates(model.tokenizer, data, config)
    figures |= figures_of_texts(model, data, config, with_sap=was_trained_on(run / "stage2", "sap"))
    figures["wer_continuous"] = None
    if (run / "stage1" / MODEL_FOLDER).exists():
        continuous = SupervisedTokenizer.from_pretrained(run / "stage1" / MODEL_FOLDER)
        continuous.quantize = False
        figures["wer_continuous"] = figures_of_texts(continuous, data, config, with_sap=False)["wer"]
    figures["training"] = {stage: summary_of_training(run / stage) for stage in STAGES if (run / stage).exists()}
    figures["evaluation_seconds"] = time.perf_counter() - started
    write_json(Path(config.output), figures)
    return figures


# ------------------------------------------------------------------------ codes


def figures_of_codes(audio_tokenizer: UniAudioTokenizer, data: ExperimentData, type_clips: int) -> dict[str, Any]:
    """Clusters and probes the codes of sound events, and probes for the type of sound.

    Args:
        audio_tokenizer: to measure.
        data: probes learn from the training clips and are judged on held-out ones.
        type_clips: of each sound type, for the second probe.
    """
    sounds = [record for record in data.train if label_of(record) is not None]
    known = {label_of(record) for record in sounds}
    held_out = [record for record in data.held_out if label_of(record) in known]
    classes = _probed(audio_tokenizer, sounds, held_out, [label_of(record) or "" for record in (*sounds, *held_out)])
    train, test = evenly_of_each(data.train, type_clips), evenly_of_each(data.held_out, type_clips)
    types = _probed(audio_tokenizer, train, test, [record["sound_type"] for record in (*train, *test)])
    labels = [label_of(record) or "" for record in held_out]
    clustered = [n for n, label in enumerate(labels) if labels.count(label) > 1]
    clustering = cluster_codes(
        [classes.test.codes[n] for n in clustered], [labels[n] for n in clustered], audio_tokenizer.codebook_size
    )
    return {
        "clustering": dataclasses.asdict(clustering),
        "sound_class_probes": classes.probes,
        "sound_type_probes": types.probes,
        "codes": {
            "codebook_size": audio_tokenizer.codebook_size,
            "usage": types.test.usage,
            "perplexity": types.test.perplexity,
            "quantization_error": types.test.quantization_error,
            "num_codes": sum(len(codes) for codes in types.test.codes),
        },
    }


@dataclass(frozen=True)
class _Probed:
    """Held-out clips as a tokenizer sees them, and the accuracies of probes by view."""

    test: ClipFeatures
    probes: dict[str, dict[str, float]]


def _probed(
    audio_tokenizer: UniAudioTokenizer,
    train: Sequence[Mapping[str, Any]],
    test: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
) -> _Probed:
    views = {
        name: encode_clips(audio_tokenizer, [load_clip(record) for record in records], SAMPLE_RATE)
        for name, records in (("train", train), ("test", test))
    }
    parts = [(np.arange(len(train)), np.arange(len(train), len(train) + len(test)))]
    return _Probed(
        views["test"],
        {
            view: probe_by_parts(
                np.concatenate([views["train"].vectors[view], views["test"].vectors[view]]), labels, parts
            )
            for view in views["test"].vectors
        },
    )


def load_clip(record: Mapping[str, Any]) -> Tensor:
    """The first seconds of a record's recording, float32 ``[N]`` at 16 kHz."""
    waveform, _ = parse_audio_part(record["audio"]).load(SAMPLE_RATE, "mean")
    return waveform[: int(MAX_CLIP_SECONDS * SAMPLE_RATE)]


# ------------------------------------------------------------------------- gates


def figures_of_gates(
    audio_tokenizer: UniAudioTokenizer, data: ExperimentData, config: SapSaeEvaluationConfig
) -> dict[str, Any] | None:
    """Mean gate on each sound type, on noise, and on speech with music in it; None where there is no gate."""
    if not has_gate(audio_tokenizer):
        return None
    clips: dict[str, list[Tensor]] = {}
    for record in evenly_of_each(data.held_out, config.gate_clips):
        clips.setdefault(record["sound_type"], []).append(load_clip(record))
    num_mixes = -(-config.gate_clips // 2)
    mixes = mean_gate_of_mixes(audio_tokenizer, clips.get("speech", [])[:num_mixes], clips.get("music", [])[:num_mixes])
    clips |= {f"{colour} noise": _noises(colour, config.seed) for colour in ("white", "pink")}
    return {
        "by_kind": {kind: mean_gate_of_clips(audio_tokenizer, waveforms) for kind, waveforms in clips.items()},
        "by_snr_db": {f"{snr_db:g}": mean for snr_db, mean in mixes.items()},
    }


def _noises(colour: Any, seed: int, num_clips: int = 8) -> list[Tensor]:
    generator = np.random.default_rng(seed)
    length = int(NOISE_SECONDS * SAMPLE_RATE)
    return [NOISE_LEVEL * coloured_noise(length, SAMPLE_RATE, colour, generator) for _ in range(num_clips)]


# ------------------------------------------------------------------------- texts


def figures_of_texts(
    model: SupervisedTokenizer, data: ExperimentData, config: SapSaeEvaluationConfig, *, with_sap: bool
) -> dict[str, Any]:
    """Word error rate of the transcripts that the decoder writes; of a variant trained on SAP also what that is worth.

    The decoder chooses between the tokens of the task's targets, in all variants the same ones, whatever else each was
    trained to write.
    """
    speech = spread([record for record in data.held_out if is_english_speech(record)], config.speech_clips)
    figures: dict[str, Any] = {"wer": _written(model, data, speech, "asr")["wer"], "sap": None}
    if with_sap:
        written = _written(model, data, evenly_of_each(data.held_out, config.sap_clips), "sap")
        figures["sap"] = written["sap"] | {"loss": written["loss"]}
    return figures


def _written(
    model: SupervisedTokenizer, data: ExperimentData, records: Sequence[Mapping[str, Any]], task: str
) -> dict[str, Any]:
    text = model.text
    assert text is not None
    targets = (parse_targets(record, number=0, where="").texts.get(task) for record in (*data.train, *data.held_out))
    token_ids = {token_id for target in targets if target is not None for token_id in text.encode(task, target)}
    model.decoder.restrict_output(sorted(token_ids))
    held_out = TokenizerRecords(list(records), text, tasks={task: 1.0})
    return evaluate_tokenizer(
        model, held_out, text, step=0, num_samples=len(held_out), max_new_tokens=MAX_NEW_TOKENS[task]
    )


# ---------------------------------------------------------------------- training


def was_trained_on(stage: Path, task: str) -> bool:
    """Whether a run of train_tokenizer.py gave a task any weight."""
    return bool(json.loads((stage / "config.json").read_text(encoding="utf-8"))["tasks"][task] > 0)


def summary_of_training(stage: Path) -> dict[str, Any]:
    """Updates, seconds (from those of the logged updates) and last losses of a run of train_tokenizer.py."""
    lines = read_metrics(stage / "metrics.jsonl")
    train = [line for line in lines if line["event"] == "train"]
    held_out = [line for line in lines if line["event"] == "eval"]
    return {
        "num_updates": train[-1]["step"],
        "seconds": float(np.mean([line["seconds"] for line in train])) * train[-1]["step"],
        "loss": train[-1]["loss"],
        "held_out_text_losses": held_out[-1]["text_losses"] if held_out else None,
        "alarms": [line["message"] for line in lines if line["event"] == "alarm"],
    }


if __name__ == "__main__":
    run_program(SapSaeEvaluationConfig, evaluate, name="sap_sae.evaluation", level=logging.WARNING)
