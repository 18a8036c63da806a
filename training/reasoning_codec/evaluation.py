"""Evaluation of analyses on held-out clips: losses, use of the codes, and what the text LLM writes."""
# Shapes: K codebooks, V entries.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object

from audiollm.benchmarks.metrics import load_metric
from audiollm.tokenizer.encoder.encoding import evaluating
from audiollm.tokenizer.quantizer.usage import perplexity_of
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.training.audio_tokenizer.evaluation import TextSample, score_texts, write_samples
from audiollm.training.loop.batches import share_of_process

from .config import ReasoningCodecTrainingConfig
from .hearing import Hearing, features_of, num_codes_of
from .objective import AnalysisObjective, counted, losses_of
from .records import ANALYSES, QUESTION, AnalysisRecords, units_of

logger = get_logger(__name__)

_TOLD = 2  # samples in the log


@torch.no_grad()
def evaluate_analyses(
    accelerator: Accelerator,
    config: ReasoningCodecTrainingConfig,
    codec: ReasoningCodec,
    objective: AnalysisObjective,
    hearing: Hearing,
    records: AnalysisRecords,
    step: int,
    folder: Path,
) -> dict[str, Any]:
    """Evaluates on held-out clips, each with all of its tasks; all processes call it, each computes its share.

    What is heard of them is remembered under numbers below zero. Nothing else is changed: neither codebooks nor random
    state, and every module returns to the mode it had.

    Returns:
        - ``loss``: mean cross-entropy per token, in nats; ``text_losses``: by task; ``num_targets``, ``num_clips``.
        - ``perplexity`` and ``codes_used`` of each codebook, over all held-out codes.
        - On the main process, of what was written: as `score_texts`, and ``question_accuracy``.
    """
    # A generator of its own: evaluating must not move the run's random state.
    drawn = np.random.default_rng(config.seed).permutation(len(records))[: config.eval_clips or None].tolist()
    units = units_of(records, drawn)
    place = (accelerator.process_index, accelerator.num_processes)
    sums = torch.zeros(len(ANALYSES), 2, dtype=torch.float64)
    sizes = codec.config.group_sizes("reasoning")
    uses = torch.zeros(len(sizes), sizes[0], dtype=torch.int64)
    samples: list[tuple[int, TextSample]] = []
    chosen = _samples_of_each_task(units, config.eval_samples)
    with evaluating(objective), accelerator.autocast():
        for index in share_of_process(drawn, *place):
            heard, num_codes = (
                hearing([records.waveform(index)], [-1 - index]),
                [num_codes_of(records.num_samples(index), codec)],
            )
            features, mask = features_of(objective.branch, heard, num_codes)
            output = objective.branch.quantizer(features)
            uses += counted(output.codes, mask, uses.shape[1]).cpu()
            texts = records.targets(index).texts
            for task in records.tasks(index):
                answer = objective.analyst.encode(task, texts[task])
                request = objective.analyst.request_ids(records.request(index, task))
                [total] = objective.analyst(output.quantized, num_codes, [request], [answer]).tolist()
                sums[ANALYSES.index(task)] += torch.tensor([total, len(answer)], dtype=torch.float64)
                if (index, task) in chosen:
                    written = objective.analyst.write(
                        output.quantized[0], records.request(index, task), max_new_tokens=config.eval_max_new_tokens
                    )
                    sample = TextSample(records.id(index), task, records.sound_type(index), texts[task], written)
                    samples.append((chosen.index((index, task)), sample))
    device = accelerator.device
    sums, uses = (accelerator.reduce(one.to(device), "sum").cpu() for one in (sums, uses))
    num_targets = round(float(sums[:, 1].sum()))
    line = losses_of(sums, num_targets)
    line = {"loss": line.pop("text_loss"), **line, "num_targets": num_targets, "num_clips": len(drawn)}
    line["perplexity"] = [round(float(perplexity_of(row.float())), 2) for row in uses]
    line["codes_used"] = [int((row > 0).sum()) for row in uses]
    everyone = [sample for _, sample in sorted(gather_object(samples), key=lambda pair: pair[0])]
    if accelerator.is_main_process and everyone:
        line |= _scores(everyone, [records.targets(index).sap for index, _ in chosen])
        folder.mkdir(parents=True, exist_ok=True)
        write_samples(folder / f"step_{step:06d}", everyone)
        for sample in everyone[:_TOLD]:
            logger.info("%s of %s: %s (true: %s)", sample.task, sample.id, sample.prediction, sample.reference)
    return line


def _samples_of_each_task(units: Sequence[tuple[int, str]], num_samples: int) -> list[tuple[int, str]]:
    """The first few of each task."""
    return [unit for task in ANALYSES for unit in [one for one in units if one[1] == task][:num_samples]]


def _scores(samples: Sequence[TextSample], references: Sequence[Any]) -> dict[str, Any]:
    scores = score_texts(samples, references)
    asked = [sample for sample in samples if sample.task == QUESTION]
    if asked:
        found = load_metric("accuracy").compute(
            predictions=[one.prediction for one in asked], references=[one.reference for one in asked]
        )
        scores["question_accuracy"] = found["accuracy"]
    return scores
