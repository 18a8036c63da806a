"""Evaluation of a tokenizer in training on held-out clips: losses, use of the codes, and the texts that it writes."""
# Shapes: B clips, T frames, V codebook entries.

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from audiollm.benchmarks.metrics import load_metric
from audiollm.benchmarks.sap.scoring import score_closed
from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_lines import write_json_lines
from audiollm.data.records import SOUND_TYPES
from audiollm.data.sap.record import SapRecord
from audiollm.tokenizer.encoder.encoding import evaluating
from audiollm.tokenizer.quantizer.usage import perplexity_of
from audiollm.tokenizer.supervision.model import SupervisedModel, SupervisedOutput
from audiollm.tokenizer.supervision.stabletoken import VOTE_FIGURES
from audiollm.tokenizer.supervision.text import SapText
from audiollm.training.loop.batches import share_of_process

from .batches import TokenizerBatch, collate_examples
from .monitor import gate_means_by_type, gate_sums_by_type
from .plots import draw_code_usage
from .records import TokenizerRecords
from .targets import TASKS

DEFAULT_BATCH_SIZE = 16
MAX_NEW_TOKENS = 200


@dataclass(frozen=True)
class TextSample:
    """One held-out clip and what the decoder wrote for one of its tasks."""

    id: str
    task: str
    sound_type: str
    reference: str
    prediction: str


@dataclass(frozen=True)
class _Unit:
    """One task of one clip; the clip's first one also counts its codes and gates, which no task changes."""

    index: int
    task: str
    is_first: bool


def evaluate_tokenizer(
    model: SupervisedModel,
    records: TokenizerRecords,
    text: SapText,
    *,
    step: int,
    folder: Path | None = None,
    num_clips: int = 0,
    num_samples: int = 8,
    batch_size: int = DEFAULT_BATCH_SIZE,
    max_new_tokens: int = MAX_NEW_TOKENS,
    pad_to_seconds: float | None = None,
    seed: int = 0,
    accelerator: Accelerator | None = None,
) -> dict[str, Any]:
    """Evaluates on held-out clips, each with all of its tasks; all processes must call it, each computes its share.

    Nothing is changed: neither codebook nor random state, and every module returns to the mode it had.

    Args:
        model: the model itself, not what a data-parallel wrapper made of it; on its device.
        records: held-out clips; their tasks are those that have a weight.
        text: turns tokens into texts.
        step: update after which this is, for the names of files.
        folder: where the main process writes ``step_NNNNNN.jsonl`` and ``.txt`` (generated texts) and
            ``step_NNNNNN.codes.png``; None writes nothing.
        num_clips: clips to look at, the same at every call; 0 for all.
        num_samples: of each task, clips whose texts are generated.
        batch_size: clips per process and forward pass.
        max_new_tokens: longest generated text, in tokens.
        pad_to_seconds: as in training.
        seed: decides which clips are drawn.
        accelerator: the run's accelerator; None evaluates in this process alone.

    Returns:
        - ``loss``: mean cross-entropy per token, in nats; ``text_losses``: by task; ``num_targets``, ``num_clips``.
        - With the quantizer ``code_usage``, ``num_dead_codes``, ``perplexity`` of all held-out codes, and
          ``relative_quantization_error``, sum of (x - e)² over sum of x², or, where codes are voted for,
          ``unanimity``, the share of bits on which all voters agree.
        - ``gate_means``: by sound type, where there is a gate.
        - Where texts were generated ``wer`` of transcripts (None if nothing is said in any), ``false_speech`` (share of
          clips without speech for which words were written), ``emotion_accuracy``, and ``sap``, see
          `score_closed`; ``num_samples``. On the main process only.
    """
    # A generator of its own: evaluating must not move the run's random state.
    drawn = np.random.default_rng(seed).permutation(len(records))[: num_clips or None].tolist()
    totals = _Totals(model.tokenizer.codebook_size, next(model.parameters()).device)
    autocast = nullcontext() if accelerator is None else accelerator.autocast()
    units = [_Unit(index, task, n == 0) for index in drawn for n, task in enumerate(records.tasks(index))]
    chosen = _samples_of_each_task(units, num_samples)
    texts: list[tuple[int, TextSample]] = []
    with torch.no_grad(), evaluating(model), autocast:
        for group in _my_batches(records, units, batch_size, accelerator):
            batch = _collate(model, records, text, group, pad_to_seconds, totals.device)
            output = model(batch.input_features, batch.attention_mask, batch.decoder_input_ids, batch.labels)
            totals.add(group[0], batch, output)
        for group in _my_batches(records, chosen, batch_size, accelerator):
            batch = _collate(model, records, text, group, pad_to_seconds, totals.device)
            texts += _write_texts(model, text, records, group, batch, max_new_tokens)
    totals.sum_over_processes(accelerator)
    result = {"num_clips": len(drawn), **totals.results()}
    samples = _gathered(texts, chosen, accelerator)
    if accelerator is None or accelerator.is_main_process:
        result |= score_texts(samples, [records.targets(unit.index).sap for unit in chosen])
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_samples(folder / f"step_{step:06d}", samples)
            if totals.has_codes:
                title = f"held-out codes after {step} updates"
                draw_code_usage(folder / f"step_{step:06d}.codes.png", totals.code_counts, title=title)
    return result


def score_texts(samples: Sequence[TextSample], references: Sequence[SapRecord | None]) -> dict[str, Any]:
    """Scores generated texts by task.

    Args:
        samples: what was generated; may be empty.
        references: the true SAP record of each sample's clip; needed for the task "sap" only.

    Returns:
        See `evaluate_tokenizer`; only what the samples have something for.
    """
    scores: dict[str, Any] = {"num_samples": len(samples)}
    transcripts = [sample for sample in samples if sample.task == "asr"]
    spoken = [sample for sample in transcripts if sample.reference]
    wordless = [sample for sample in transcripts if not sample.reference]
    if spoken:
        scores["wer"] = _metric("wer", spoken)
    if wordless:
        scores["false_speech"] = sum(bool(sample.prediction) for sample in wordless) / len(wordless)
    emotions = [sample for sample in samples if sample.task == "emotion"]
    if emotions:
        scores["emotion_accuracy"] = _metric("accuracy", emotions)
    described = [
        (sample.prediction, sap) for sample, sap in zip(samples, references, strict=True) if sample.task == "sap"
    ]
    if described:
        scores["sap"] = score_closed([prediction for prediction, _ in described], [sap for _, sap in described if sap])
    return scores


def write_samples(stem: Path, samples: Sequence[TextSample]) -> None:
    """Writes generated texts twice: ``<stem>.jsonl`` for programs, ``<stem>.txt`` for people."""
    write_json_lines(stem.with_suffix(".jsonl"), [asdict(sample) for sample in samples])
    with atomic_write(stem.with_suffix(".txt")) as file:
        for sample in samples:
            file.write(f"{sample.task} of {sample.id} ({sample.sound_type})\n")
            file.write(f"  true:    {sample.reference}\n  written: {sample.prediction}\n\n")


class _Totals:
    """Sums over held-out clips, which those of other processes can be added to."""

    def __init__(self, codebook_size: int, device: torch.device) -> None:
        self.device = device
        sizes = {"losses": (len(TASKS), 2), "gates": (len(SOUND_TYPES), 2), "codes": (codebook_size,), "errors": (2,),
                 "votes": (2,)}  # fmt: skip
        self._sums = {name: torch.zeros(size, dtype=torch.float64, device=device) for name, size in sizes.items()}

    def add(self, unit: _Unit, batch: TokenizerBatch, output: SupervisedOutput) -> None:
        """Adds a batch of one task, all first ones of their clips or none."""
        losses = torch.stack([output.text_loss_sum.double(), output.num_targets.double()])
        self._sums["losses"][TASKS.index(unit.task)] += losses
        if not unit.is_first:
            return
        if output.gate_means is not None:
            self._sums["gates"] += gate_sums_by_type(output.gate_means, batch.sound_types).to(self.device)
        if output.codes is not None:
            codes = output.codes[output.frame_mask]
            self._sums["codes"] += torch.bincount(codes, minlength=len(self._sums["codes"]))
            self._sums["errors"] += torch.stack([output.quantization_error, output.feature_power]).double()
            if output.vote_sums is not None:
                unanimous = output.vote_sums[VOTE_FIGURES.index("unanimity")]
                self._sums["votes"] += torch.stack([unanimous, output.num_frames]).double()

    def sum_over_processes(self, accelerator: Accelerator | None) -> None:
        if accelerator is not None:
            self._sums = {name: accelerator.reduce(value, "sum") for name, value in self._sums.items()}

    @property
    def has_codes(self) -> bool:
        """Whether there was a quantizer to make them."""
        return bool(self.code_counts.any())

    @property
    def code_counts(self) -> Tensor:
        """How often each code occurred, float64 ``[V]``."""
        return self._sums["codes"].cpu()

    def results(self) -> dict[str, Any]:
        """Means of what there was."""
        losses = {task: pair for task, pair in zip(TASKS, self._sums["losses"].tolist(), strict=True) if pair[1]}
        nats, targets = (sum(column) for column in zip(*losses.values(), strict=True))
        result: dict[str, Any] = {
            "loss": nats / targets,
            "text_losses": {task: total / count for task, (total, count) in losses.items()},
            "num_targets": int(targets),
        }
        if self.has_codes:
            num_active = int((self.code_counts > 0).sum())
            error, power = self._sums["errors"].tolist()
            result |= {
                "code_usage": num_active / len(self.code_counts),
                "num_dead_codes": len(self.code_counts) - num_active,
                "perplexity": float(perplexity_of(self.code_counts)),
            }
            unanimous, num_frames = self._sums["votes"].tolist()
            result |= (
                {"unanimity": unanimous / num_frames} if num_frames else {"relative_quantization_error": error / power}
            )
        gates = gate_means_by_type(self._sums["gates"])
        return result | ({"gate_means": gates} if gates else {})


def _samples_of_each_task(units: Sequence[_Unit], num_samples: int) -> list[_Unit]:
    return [
        unit for task in TASKS for unit in itertools.islice((unit for unit in units if unit.task == task), num_samples)
    ]


def _my_batches(
    records: TokenizerRecords, units: Sequence[_Unit], batch_size: int, accelerator: Accelerator | None
) -> list[list[_Unit]]:
    """This process's batches, each of one task and of clips of similar length; some processes may have one less."""

    def kind(unit: _Unit) -> tuple[str, bool]:
        return unit.task, unit.is_first

    batches: list[list[_Unit]] = []
    ordered = sorted(units, key=lambda unit: (*kind(unit), records.num_samples(unit.index), unit.index))
    for _, group in itertools.groupby(ordered, key=kind):
        alike = list(group)
        batches += [alike[start : start + batch_size] for start in range(0, len(alike), batch_size)]
    if accelerator is None:
        return batches
    mine = share_of_process(list(range(len(batches))), accelerator.process_index, accelerator.num_processes)
    return [batches[n] for n in mine]


def _collate(
    model: SupervisedModel,
    records: TokenizerRecords,
    text: SapText,
    group: Sequence[_Unit],
    pad_to_seconds: float | None,
    device: torch.device,
) -> TokenizerBatch:
    examples = [records.example(unit.index, epoch=0, seed=0, task=unit.task) for unit in group]
    batch = collate_examples(
        examples,
        model.tokenizer.log_mel,
        token_stride=model.tokenizer.config.token_stride,
        pad_id=text.pad_id,
        pad_to_seconds=pad_to_seconds,
    )
    return batch.to(device)


def _write_texts(
    model: SupervisedModel,
    text: SapText,
    records: TokenizerRecords,
    group: Sequence[_Unit],
    batch: TokenizerBatch,
    max_new_tokens: int,
) -> list[tuple[int, TextSample]]:
    """Generates a batch's texts; returns them with their clips' numbers."""
    start_ids = torch.full((len(group),), text.start_id(group[0].task), device=batch.input_features.device)
    written = model.generate(
        batch.input_features, batch.attention_mask, start_ids, max_new_tokens=max_new_tokens, end_id=text.end_id
    )
    return [
        (
            unit.index,
            TextSample(
                id=records.id(unit.index),
                task=unit.task,
                sound_type=records.sound_type(unit.index),
                reference=records.targets(unit.index).texts[unit.task],
                prediction=text.decode(token_ids),
            ),
        )
        for unit, token_ids in zip(group, written, strict=True)
    ]


def _gathered(
    mine: list[tuple[int, TextSample]], chosen: Sequence[_Unit], accelerator: Accelerator | None
) -> list[TextSample]:
    """All processes' samples in the order of ``chosen``."""
    everyone = mine if accelerator is None else gather_object(mine)
    by_unit = {(index, sample.task): sample for index, sample in everyone}
    return [by_unit[unit.index, unit.task] for unit in chosen]


def _metric(name: str, samples: Sequence[TextSample]) -> float | None:
    scores = load_metric(name).compute(
        predictions=[sample.prediction for sample in samples], references=[sample.reference for sample in samples]
    )
    value: float | None = scores[name]
    return value
