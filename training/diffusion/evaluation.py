"""Evaluation of a diffusion model in training: held-out loss by time, and what it makes of held-out texts."""
# Shapes: T frames, D latent size.

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from audiollm.benchmarks.metrics.distances import frechet_distance
from audiollm.data.audio.waveforms import resample
from audiollm.data.files.json_document import write_json
from audiollm.diffusion.generator import AudioGenerator
from audiollm.diffusion.modeling import LatentDiffusion
from audiollm.tokenizer.decoder.flow.solvers import Integration
from audiollm.tokenizer.signal.mel import MelConfig
from audiollm.training.decoder.validation import ORIGINAL, ValidationClip, write_clips
from audiollm.training.loop.batches import cut_by_frames, share_of_process
from audiollm.training.recordings.segments import clip_generator

from .batches import ClipDraw, DiffusionPass, make_pass
from .clips import TextClips
from .plots import draw_times
from .start import DiffusionRun

TIME_BINS = 5
GENERATED = "generated"
EVALUATION_SEEDS = (0, 0)  # of held-out clips: those of no update


@dataclasses.dataclass(frozen=True)
class MadeClip:
    """A held-out text as the model makes it."""

    index: int
    sound: ValidationClip
    latents: Tensor  # made, normalised, [T, D]
    true: Tensor  # of the recording


@torch.no_grad()
def evaluate(run: DiffusionRun, model: LatentDiffusion, folder: Path) -> dict[str, Any]:
    """Measures a model, in evaluation mode, on all processes' held-out clips.

    Args:
        run: the run.
        model: with the weights to measure.
        folder: for pictures, sounds and figures.

    Returns:
        ``loss``, ``loss_by_time`` and, of the sounds that were made, ``latent_distance`` (Fréchet distance of their
        frames to those of the recordings) and ``latent_deviation`` (their spread over that of the recordings); the same
        on every process.
    """
    losses = _losses_by_time(run, model)
    made = sorted(gather_object(_generate(run, model)), key=lambda clip: clip.index)
    lines: list[dict[str, Any]] = [{}]
    if run.accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        line: dict[str, Any] = {"loss": sum(losses) / len(losses)}
        line["loss_by_time"] = {f"{(index + 0.5) / TIME_BINS:g}": loss for index, loss in enumerate(losses)}
        draw_times(folder / "times.png", losses)
        if made:
            line |= _compare(made)
            rate = run.audio_tokenizer.output_sample_rate
            write_clips([clip.sound for clip in made], MelConfig(sample_rate=rate), folder)
        write_json(folder / "metrics.json", line)
        lines = [line]
    return broadcast_object_list(lines)[0]


def _losses_by_time(run: DiffusionRun, model: LatentDiffusion) -> list[float]:
    """Mean held-out loss in the middle of each bin of time; noise is the same at every evaluation."""
    clips, config, accelerator = run.held_out, run.config, run.accelerator
    assert clips is not None
    mine = share_of_process(list(range(len(clips))), accelerator.process_index, accelerator.num_processes)
    lengths = [min(clips.num_frames(index), model.config.max_frames) for index in range(len(clips))]
    found: list[tuple[int, list[float]]] = []
    for group in cut_by_frames(mine, lengths, config.frames_per_pass):
        draws = [ClipDraw(lengths[index], 0, True, clip_generator(*EVALUATION_SEEDS, index)) for index in group]
        one = make_pass(clips, model, group, group, draws, config, EVALUATION_SEEDS)
        by_bin = [_at(one, (number + 0.5) / TIME_BINS) for number in range(TIME_BINS)]
        rows = torch.stack([model.row_losses(**part.inputs(accelerator.device)).cpu() for part in by_bin], dim=1)
        found += list(zip(group, rows.tolist(), strict=True))
    everyone = [row for _, row in sorted(gather_object(found))]
    return [sum(row[number] for row in everyone) / len(everyone) for number in range(TIME_BINS)]


def _at(one: DiffusionPass, time: float) -> DiffusionPass:
    return dataclasses.replace(one, draws=dataclasses.replace(one.draws, t=torch.full_like(one.draws.t, time)))


def make_latents(
    model: LatentDiffusion, clips: TextClips, indices: Sequence[int], integration: Integration
) -> list[Tensor]:
    """Makes latents of the texts of clips, each as long as its recording, up to the longest that the model makes.

    A clip's noise is the same at every evaluation, so that what is made differs by the weights alone.

    Args:
        model: in evaluation mode.
        clips: the source.
        indices: which of them, together in one batch.
        integration: solver, times and guidance.

    Returns:
        float32 ``[T_i, D]`` on the CPU.
    """
    sizes = model.config
    noises = [
        torch.randn(
            min(clips.num_frames(index), sizes.max_frames),
            sizes.latent_size,
            generator=clip_generator(*EVALUATION_SEEDS, index),
        )
        for index in indices
    ]
    task_ids = torch.tensor([sizes.task_id(clips.task(index)) for index in indices])
    return model.sample(noises, model.tokenize([clips.text(index) for index in indices]), task_ids, integration)


def _generate(run: DiffusionRun, model: LatentDiffusion) -> list[MadeClip]:
    """Makes a sound of each of this process's held-out texts, as long as its recording."""
    clips, accelerator = run.held_out, run.accelerator
    assert clips is not None
    numbers = list(range(min(len(clips), run.config.eval_clips)))
    if not numbers:
        return []
    sizes = model.config
    integration = Integration(sizes.steps, sizes.guidance, sway=sizes.sway)
    generator = AudioGenerator(model, run.audio_tokenizer)
    made = []
    for index in share_of_process(numbers, accelerator.process_index, accelerator.num_processes):
        [latents] = make_latents(model, clips, [index], integration)
        rates = run.audio_tokenizer.sample_rate, run.audio_tokenizer.output_sample_rate
        waveform = resample(clips.waveform(index), *rates)
        sounds = {ORIGINAL: waveform, GENERATED: generator.decode(latents)}
        true = clips.latents(index).mean[: len(latents)]
        normalised = [model.normalise(one.to(model.device)).cpu() for one in (latents, true)]
        made.append(MadeClip(index, ValidationClip(clips.id(index), clips.text(index), sounds), *normalised))
    return made


def _compare(made: list[MadeClip]) -> dict[str, float]:
    latents, true = (torch.cat([getattr(clip, name) for clip in made]) for name in ("latents", "true"))
    return {
        "latent_distance": frechet_distance(latents.numpy(), true.numpy()),
        "latent_deviation": float(latents.std() / true.std().clamp(min=1e-12)),
    }
