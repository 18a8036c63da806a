"""Held-out figures of one model, from what it answers when it is loaded from its folder."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from audiollm.benchmarks.metrics import load_metric
from audiollm.data.files.json_lines import read_json_lines
from audiollm.modeling import AudioLLM
from audiollm.prompts import instruction
from audiollm.training.audio_llm.evaluation import GeneratedSample, score_samples
from audiollm.training.audio_llm.model import ADAPTER_FOLDER
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.record import METRICS_NAME, read_metrics
from audiollm.training.recipes.answering import answer
from audiollm.training.recipes.demo.questions import answer_text, score_table

from .data import TRANSCRIBE, corpus_of

NUM_EXAMPLES = 8
_LAST_UPDATES = 20


def score_model(folder: Path, train: Path, held_out: Path, recording: str, text: str) -> dict[str, Any]:
    """Asks a model everything that is held out, and once about a recording, which it has to turn into codes itself.

    Args:
        folder: the model.
        train: training conversations: what one would answer without listening.
        held_out: held-out conversations.
        recording: path of a held-out recording.
        text: what is said in it.

    Returns:
        Word error rates by corpus, accuracies by task beside those of the commonest answer and of guessing (shares),
        examples, and the seconds that it took.
    """
    started = time.perf_counter()
    model = AudioLLM.from_pretrained(folder)
    samples = answered(model, list(read_json_lines(held_out)))
    asked = {"question": instruction(TRANSCRIBE), "truth": text}
    asked["answer"] = model.chat([[_message(recording, asked["question"])]], max_new_tokens=64).texts[0]
    accuracies = score_samples(samples, (TRANSCRIBE,))["accuracy_by_task"]
    return {
        "wer": word_error_rates(samples),
        "accuracy": accuracies_beside_chance(accuracies, list(read_json_lines(train)), list(read_json_lines(held_out))),
        "examples": examples(samples),
        "asked_about_a_file": asked,
        "seconds": round(time.perf_counter() - started, 1),
    }


def answered(model: AudioLLM, records: Sequence[Mapping[str, Any]]) -> list[GeneratedSample]:
    """Every record's question with the model's answer, in their order."""
    predictions: dict[str, str] = {}
    for task in dict.fromkeys(record["task"] for record in records):
        group = [record for record in records if record["task"] == task]
        parts = [record["messages"][0]["content"] for record in group]
        codes = [torch.tensor(audio["codes"]) for audio, _ in parts]
        texts = answer(model, codes, [request["text"] for _, request in parts], task)
        predictions |= {record["id"]: text for record, text in zip(group, texts, strict=True)}
    return [
        GeneratedSample(record["id"], record["task"], answer_text(dict(record)), predictions[record["id"]])
        for record in records
    ]


def word_error_rates(samples: Sequence[GeneratedSample]) -> dict[str, Any]:
    """By corpus, over all its words after the English normalization; words too many count too, so it can exceed 1."""
    found = {}
    transcripts = [sample for sample in samples if sample.task == TRANSCRIBE]
    for corpus in dict.fromkeys(corpus_of(sample.id) for sample in transcripts):
        own = [sample for sample in transcripts if corpus_of(sample.id) == corpus]
        wer = load_metric("wer").compute(
            predictions=[sample.prediction for sample in own], references=[sample.reference for sample in own]
        )["wer"]
        found[corpus] = {"clips": len(own), "wer": wer}
    return found


def accuracies_beside_chance(
    accuracies: Mapping[str, float], train: Sequence[dict[str, Any]], held_out: Sequence[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Task → questions, and the shares that are right, would be by the commonest answer, and by guessing."""
    trained, asked = ([one for one in records if one["task"] != TRANSCRIBE] for records in (train, held_out))
    return {
        row["task"]: {
            "questions": row["questions"],
            "accuracy": accuracies[row["task"]],
            "majority": row["majority %"] / 100,
            "guessing": row["random %"] / 100,
        }
        for row in score_table(trained, asked, dict(accuracies))
    }


def examples(samples: Sequence[GeneratedSample]) -> list[dict[str, str]]:
    """The first transcripts of each corpus."""
    transcripts = [sample for sample in samples if sample.task == TRANSCRIBE]
    corpora = dict.fromkeys(corpus_of(sample.id) for sample in transcripts)
    return [
        {"id": sample.id, "said": sample.reference, "heard": sample.prediction}
        for corpus in corpora
        for sample in [sample for sample in transcripts if corpus_of(sample.id) == corpus][:NUM_EXAMPLES]
    ]


def training_figures(run: Path) -> dict[str, Any]:
    """What the metrics of a finished run say: losses in nats per token, perplexity of held-out texts before and after,
    and the work; seconds are medians over the updates."""
    lines = read_metrics(run / METRICS_NAME)
    updates = [line for line in lines if line["event"] == "train"]
    start = next(line for line in lines if line["event"] == "start")
    end = [line for line in lines if line["event"] == "eval"][-1]
    last = updates[-_LAST_UPDATES:]
    return {
        "trained_parameters": trained_parameters(run),
        "updates": updates[-1]["step"],
        "tokens": sum(line["tokens"] for line in updates),
        "target_tokens": sum(line["target_tokens"] for line in updates),
        "seconds_per_update": statistics.median(line["seconds"] for line in updates),
        "processor_seconds_per_update": statistics.median(line["processor_seconds"] for line in updates),
        "hours": math.fsum(line["seconds"] for line in updates) / 3600,
        "train_loss": statistics.fmean(line["loss"] for line in last),
        "held_out_loss": end["loss"],
        "text_perplexity": {"before": start["text_perplexity"], "after": end["text_perplexity"]},
        "num_text_tokens": end["num_text_tokens"],
    }


def trained_parameters(run: Path) -> int:
    """How many numbers a finished run trained: those of its adapter, or all of its model."""
    adapter = run / ADAPTER_FOLDER
    files = sorted((adapter if adapter.is_dir() else run / MODEL_FOLDER).glob("*.safetensors"))
    count = 0
    for path in files:
        with safe_open(path, framework="pt") as tensors:
            count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return count


def _message(recording: str, question: str) -> dict[str, Any]:
    content = [{"type": "audio", "path": recording}, {"type": "text", "text": question}]
    return {"role": "user", "content": content}
