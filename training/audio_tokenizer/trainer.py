"""One update of a tokenizer's training: reading its clips, losses and gradients, the codebook, its line of metrics.

The loss belongs to the whole update: cross-entropy over all its target tokens plus quantizer loss over all its frames.
So neither the number of processes nor the size of a pass changes it.
"""
# Shapes: B clips.

from __future__ import annotations

import dataclasses
import math
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from audiollm.data.audio.augmentation import augment
from audiollm.data.collation import IGNORED_LABEL
from audiollm.data.records import SOUND_TYPES
from audiollm.data.sampling import seed_of
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.signal.log_mel import LogMelFeatures
from audiollm.tokenizer.supervision.model import SupervisedModel, SupervisedOutput
from audiollm.tokenizer.supervision.stabletoken import VOTE_FIGURES, SupervisedStableToken
from audiollm.training.loop.batches import DataOrder, share_of_process
from audiollm.training.loop.non_finite import stop_unless_finite
from audiollm.training.loop.optimizer import set_learning_rates

from .batches import TokenizerBatch, collate_examples
from .config import TokenizerTrainingConfig, num_updates, passes_per_update
from .monitor import gate_means_by_type, gate_sums_by_type
from .records import TokenizerExample, TokenizerRecords
from .start import learning_rates_of
from .targets import TASKS
from .voting import vote_of_update

_BACKGROUNDS = ("sound", "music")  # sound types of clips that may be put behind others
_NUM_SUMS = 4  # of UpdateSums: text loss, quantizer loss, quantization error, power


class TokenizerObjective(nn.Module):
    """The model as data parallelism and DeepSpeed wrap it. It chooses the precision itself, so that all of them agree.

    Args:
        model: tokenizer and text decoder.
        mixed_precision: ``no`` or ``bf16``.
    """

    def __init__(self, model: SupervisedModel, mixed_precision: str) -> None:
        super().__init__()
        self.model = model
        self._mixed_precision = mixed_precision

    def autocast(self) -> torch.autocast:
        """The precision of the run, as a context."""
        return precision_of(self.model, self._mixed_precision)

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor,
        decoder_input_ids: Tensor,
        labels: Tensor,
        **of_quantizer: Any,
    ) -> SupervisedOutput:
        """See `SupervisedModel.forward`."""
        with self.autocast():
            output: SupervisedOutput = self.model(
                input_features, attention_mask, decoder_input_ids, labels, **of_quantizer
            )
        return output


def precision_of(model: nn.Module, mixed_precision: str) -> torch.autocast:
    """The precision of a run with ``mixed_precision`` ``no`` or ``bf16``, as a context."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=mixed_precision == "bf16")


class UpdateReader:
    """Reads this process's share of an update.

    Args:
        accelerator: the run's processes.
        config: the run.
        records: training clips.
        model: the model; only what its tokenizer needs as features is read.

    Raises:
        ValueError: if clips shall be put behind others and there is none to put there.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: TokenizerTrainingConfig,
        records: TokenizerRecords,
        model: SupervisedModel,
    ) -> None:
        assert model.text is not None
        self._accelerator = accelerator
        self._config = config
        self._records = records
        self._order = DataOrder(len(records), config.global_batch_size, config.seed)
        self._log_mel: LogMelFeatures = model.tokenizer.log_mel
        self._token_stride = model.tokenizer.config.token_stride
        self._pad_id = model.text.pad_id
        self._keeps_clean = isinstance(model, SupervisedStableToken)  # some voters hear the clip as it is
        self.total_steps = num_updates(config, len(records))
        self._backgrounds = [n for n in range(len(records)) if records.sound_type(n) in _BACKGROUNDS]
        if config.augmentation.clip_snr_db is not None and not self._backgrounds:
            raise ValueError(
                f"augmentation.clip_snr_db puts sounds and music behind clips, but {records.name} has none: set it to "
                "null, or set sound_type of the records"
            )

    def epoch(self, step: int) -> float:
        """Passes over the data that are complete after an update."""
        return self._order.epoch(step)

    def __call__(self, step: int) -> list[TokenizerBatch]:
        """Returns as many passes as every other process has, clips of similar length together.

        A process with fewer clips gets passes without frames and targets, so that all exchange gradients together.
        """
        config, accelerator = self._config, self._accelerator
        clips = self._order.batch(step)
        positions = share_of_process(list(range(len(clips))), accelerator.process_index, accelerator.num_processes)
        examples = [(self._example(step, position, clips[position]), position) for position in positions]
        # Padding costs what sound costs; the loss belongs to the update, so that the order within it is free.
        examples.sort(key=lambda pair: len(pair[0].waveform))
        size = config.micro_batch_size
        passes = [self._collate(examples[start : start + size]) for start in range(0, len(examples), size)]
        missing = passes_per_update(config, accelerator.num_processes) - len(passes)
        if missing:
            shortest = examples[0] if examples else (self._example(step, 0, clips[0]), 0)
            passes += [without_content(self._collate([shortest]))] * missing
        return passes

    def _example(self, step: int, position: int, clip: int) -> TokenizerExample:
        """One clip; how it is degraded depends on seed, epoch and clip alone."""
        config = self._config
        # Of this very place: an update may straddle the end of an epoch.
        epoch = ((step - 1) * self._order.global_batch_size + position) // len(self._records)
        example = self._records.example(clip, epoch=epoch, seed=config.seed)
        if not config.augmentation.probability:
            return example
        generator = np.random.default_rng(seed_of(config.seed, epoch, example.id, "augmentation"))
        waveform = augment(example.waveform, SAMPLE_RATE, config.augmentation, generator, self._background)
        if self._keeps_clean:
            return dataclasses.replace(example, noisy_waveform=waveform)
        return dataclasses.replace(example, waveform=waveform)

    def _background(self, generator: np.random.Generator) -> Tensor:
        return self._records.waveform(self._backgrounds[generator.integers(len(self._backgrounds))])

    def _collate(self, examples: Sequence[tuple[TokenizerExample, int]]) -> TokenizerBatch:
        return collate_examples(
            [example for example, _ in examples],
            self._log_mel,
            token_stride=self._token_stride,
            pad_id=self._pad_id,
            pad_to_seconds=self._config.pad_to_seconds,
            positions=[position for _, position in examples],
        )


def without_content(batch: TokenizerBatch) -> TokenizerBatch:
    """A pass of the same shape that teaches nothing: all frames are padding, no token is a target."""
    return dataclasses.replace(
        batch,
        attention_mask=torch.zeros_like(batch.attention_mask),
        labels=torch.full_like(batch.labels, IGNORED_LABEL),
        num_codes=torch.zeros_like(batch.num_codes),
        num_samples=[0] * len(batch),
    )


@dataclass
class UpdateSums:
    """Sums over the passes of an update; `over_processes` adds those of other processes in one exchange."""

    values: Tensor  # float64 [4]: text loss, quantizer loss, quantization error, feature power
    gates: Tensor  # float64 [4, 2]: sum and number of clips by sound type
    tasks: Tensor  # float64 [4, 2]: text loss and number of targets by task
    votes: Tensor  # float64 [Q]: figures of a vote x frames

    @classmethod
    def zeros(cls, device: torch.device) -> UpdateSums:
        """Nothing summed yet."""
        # float64: sums over an update must not depend on how it is cut into passes and processes.
        shapes = ((_NUM_SUMS,), (len(SOUND_TYPES), 2), (len(TASKS), 2), (len(VOTE_FIGURES),))
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def add(self, batch: TokenizerBatch, output: SupervisedOutput) -> None:
        """Adds a pass."""
        sums = (output.text_loss_sum, output.quantizer_loss_sum, output.quantization_error, output.feature_power)
        self.values += torch.stack([one.detach().double() for one in sums])
        if output.gate_means is not None and batch.num_frames:
            self.gates += gate_sums_by_type(output.gate_means, batch.sound_types)
        if output.vote_sums is not None:
            self.votes += output.vote_sums.double()
        if output.text_losses is not None:
            rows = torch.tensor([TASKS.index(task) for task in batch.tasks], device=self.tasks.device)
            self.tasks.index_add_(0, rows, output.text_losses.double())

    def over_processes(self, accelerator: Accelerator) -> UpdateSums:
        """The sums of all processes."""
        if accelerator.num_processes == 1:
            return self
        parts = (self.values, self.gates, self.tasks, self.votes)
        joined = accelerator.reduce(torch.cat([one.flatten() for one in parts]), "sum")
        values, gates, tasks, votes = joined.split([one.numel() for one in parts])
        return UpdateSums(values, gates.view_as(self.gates), tasks.view_as(self.tasks), votes)


@dataclass(frozen=True)
class UpdateCounts:
    """What an update of all processes consists of."""

    num_clips: int
    num_targets: int
    num_frames: int
    seconds: float


def count_update(accelerator: Accelerator, batches: Sequence[TokenizerBatch]) -> UpdateCounts:
    """Counts an update's content over all processes, before anything of it is computed."""
    rows = [
        [sum(samples > 0 for samples in one.num_samples), one.num_targets, one.num_frames, one.seconds]
        for one in batches
    ]
    counts = torch.tensor(rows, dtype=torch.float64).sum(dim=0)
    if accelerator.num_processes > 1:
        counts = accelerator.reduce(counts.to(accelerator.device), "sum")
    num_clips, num_targets, num_frames, seconds = counts.tolist()
    return UpdateCounts(round(num_clips), round(num_targets), round(num_frames), seconds)


@dataclass
class TokenizerUpdater:
    """Makes updates.

    Attributes:
        accelerator: the run's processes.
        config: its settings.
        objective: the prepared `TokenizerObjective`.
        model: the model in it.
        optimizer: the prepared optimizer.
        total_steps: updates of the whole run.
    """

    accelerator: Accelerator
    config: TokenizerTrainingConfig
    objective: nn.Module
    model: SupervisedModel
    optimizer: Any
    total_steps: int
    _peaks: Mapping[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self._peaks = learning_rates_of(self.config)

    def update(self, step: int, batches: Sequence[TokenizerBatch]) -> dict[str, Any]:
        """Makes one update of weights and codebook; returns its line of the metrics.

        Raises:
            NonFiniteLossError: if loss or gradient is no number; weights and codebook are left as they were (under
                DeepSpeed, which makes its update in the backward pass, only if it is the loss).
        """
        accelerator = self.accelerator
        learning_rates = set_learning_rates(
            self.optimizer, step, self.total_steps, self.config, self._peaks, self.config.warmup_steps
        )
        counts = count_update(accelerator, batches)
        # accelerate (or DeepSpeed) divides by the accumulated passes, and gradients are averaged over the processes.
        scale = len(batches) * accelerator.num_processes
        vote = self._vote(step, batches, counts)
        sums, by_pass = UpdateSums.zeros(accelerator.device), []
        for batch in batches:
            with accelerator.accumulate(self.objective):
                batch = batch.to(accelerator.device)
                output: SupervisedOutput = self.objective(
                    batch.input_features,
                    batch.attention_mask,
                    batch.decoder_input_ids,
                    batch.labels,
                    **self._of_quantizer(batch),
                    **vote,
                )
                # Over targets and frames of the whole update: a mean of the passes' means would change with their size.
                loss = output.text_loss_sum / max(counts.num_targets, 1)
                if self.model.quantize:
                    loss = loss + output.quantizer_loss_sum / max(counts.num_frames, 1)
                sums.add(batch, output)
                by_pass.append((batch.ids, loss.detach()))
                if accelerator.sync_gradients:
                    # Before the last backward pass, in which DeepSpeed already makes the update.
                    sums = sums.over_processes(accelerator)
                    line = self._losses(sums, counts)
                    stop_unless_finite(accelerator, self.config, step, "loss", line["loss"], by_pass)
                accelerator.backward(loss * scale)
                if accelerator.sync_gradients:
                    # max_norm=inf measures without clipping; DeepSpeed clips by itself and returns the norm.
                    norm = accelerator.clip_grad_norm_(
                        self.objective.parameters(), self.config.max_grad_norm or math.inf
                    )
                    stop_unless_finite(accelerator, self.config, step, "gradient norm", float(norm), by_pass)
                self.optimizer.step()
                self.optimizer.zero_grad()
        return {
            **line,
            **self._update_codebook(),
            "learning_rates": learning_rates,
            "grad_norm": float(norm),
            "num_clips": counts.num_clips,
            "num_targets": counts.num_targets,
            "num_frames": counts.num_frames,
            "audio_seconds": round(counts.seconds, 3),
            "memory_mb": round(peak_memory(accelerator.device) / 2**20),
        }

    def _vote(self, step: int, batches: Sequence[TokenizerBatch], counts: UpdateCounts) -> dict[str, Any]:
        """What a vote must know of the whole update."""
        if not isinstance(self.model, SupervisedStableToken):
            return {}
        autocast = precision_of(self.model, self.config.mixed_precision)
        return vote_of_update(self.accelerator, self.config, self.model, step, batches, counts.num_frames, autocast)

    def _of_quantizer(self, batch: TokenizerBatch) -> dict[str, Any]:
        """What the quantizer takes of a pass beside the features."""
        if isinstance(self.model, SupervisedStableToken):
            return {"noisy_features": batch.noisy_features}
        return {"example_ids": batch.example_ids}

    def _losses(self, sums: UpdateSums, counts: UpdateCounts) -> dict[str, Any]:
        text_loss, quantizer_loss, error, power = sums.values.tolist()
        text_loss /= max(counts.num_targets, 1)
        line: dict[str, Any] = {"loss": text_loss, "text_loss": text_loss}
        line["text_losses"] = {
            task: total / count for task, (total, count) in zip(TASKS, sums.tasks.tolist(), strict=True) if count
        }
        if self.model.quantize:
            line["quantizer_loss"] = quantizer_loss / max(counts.num_frames, 1)
            line["loss"] += line["quantizer_loss"]
            if isinstance(self.model, SupervisedStableToken):
                votes = (sums.votes / max(counts.num_frames, 1)).tolist()
                line |= dict(zip(VOTE_FIGURES, votes, strict=True))
            else:
                line["relative_quantization_error"] = error / power if power else 0.0
        gates = gate_means_by_type(sums.gates)
        return line | ({"gate_means": gates} if gates else {})

    def _update_codebook(self) -> dict[str, Any]:
        if not self.model.quantize:
            return {}
        codebook = self.model.tokenizer.codebook
        # Once for each update and after the optimizer, from what all passes gathered: codes of one update come of one
        # codebook, however the update is cut.
        done = codebook.apply_update()
        usage = codebook.usage()
        return {
            "code_usage": usage,
            "perplexity": done.perplexity,
            "num_active_codes": done.num_active,
            "num_dead_codes": round((1 - usage) * codebook.codebook_size),
            "num_restarted": done.num_restarted,
        }


def peak_memory(device: torch.device) -> int:
    """Most bytes that this process has used so far: of the GPU's memory, or of the machine's without one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # ru_maxrss counts kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
