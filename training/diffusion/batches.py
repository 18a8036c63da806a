"""Clips of a pass: their latents, cut and padded, and everything random drawn.

Everything random of a clip (time, noise, part, prompt, whether its condition is dropped) comes from a generator of its
own. So an update does not depend on how many processes share it, how it is cut into passes, or where a run was
interrupted.
"""
# Shapes: B clips, T frames, D latent size.

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from audiollm.diffusion.modeling import LatentDiffusion
from audiollm.diffusion.text import TextBatch
from audiollm.tokenizer.decoder.flow.matching import MAX_PROMPT_SHARE, FlowDraws
from audiollm.training.decoder.base import even_times
from audiollm.training.recordings.segments import clip_generator

from .clips import TextClips
from .config import DiffusionTrainingConfig


@dataclass(frozen=True)
class DiffusionPass:
    """The clips of one forward and backward pass, right-padded."""

    ids: list[str]
    latents: Tensor  # [B, T, D] float32
    lengths: Tensor  # [B] int64
    text: TextBatch
    task_ids: Tensor  # [B] int64
    draws: FlowDraws
    num_frames: int  # that are learnt: those that are neither padding nor given

    def inputs(self, device: torch.device) -> dict[str, Any]:
        """Arguments of `LatentDiffusion.forward`."""
        draws = FlowDraws(**{f.name: getattr(self.draws, f.name).to(device) for f in dataclasses.fields(self.draws)})
        text = self.text.to(device)
        parts = {name: getattr(self, name).to(device) for name in ("latents", "lengths", "task_ids")}
        return parts | {"input_ids": text.input_ids, "attention_mask": text.attention_mask, "draws": draws}


@dataclass(frozen=True)
class ClipDraw:
    """What is decided of a clip of an update before its latents are there."""

    num_frames: int  # that are trained on
    prompt_frames: int  # of them, that are given
    keep_condition: bool
    generator: torch.Generator  # for all else

    @property
    def num_learnt(self) -> int:
        """Frames that count in the loss."""
        return self.num_frames - self.prompt_frames


def draw_clip(num_frames: int, config: DiffusionTrainingConfig, seeds: tuple[int, int], position: int) -> ClipDraw:
    """Draws what does not need the clip's latents.

    Args:
        num_frames: of the clip, longer ones cut.
        config: the run.
        seeds: of the run, and the update.
        position: of the clip in the update.
    """
    generator = clip_generator(*seeds, position)
    # All three are drawn, used or not, so that a setting changes none of the other draws.
    keep, prompt, length = torch.rand(3, generator=generator).tolist()
    is_kept = keep >= config.condition_dropout
    prompt_frames = int(length * MAX_PROMPT_SHARE * num_frames) if is_kept and prompt < config.prompt_share else 0
    return ClipDraw(num_frames, prompt_frames, is_kept, generator)


def make_pass(
    clips: TextClips,
    model: LatentDiffusion,
    indices: Sequence[int],
    positions: Sequence[int],
    draws: Sequence[ClipDraw],
    config: DiffusionTrainingConfig,
    seeds: tuple[int, int],
) -> DiffusionPass:
    """Reads the latents of clips, cuts long ones, pads all to the longest and draws what is random.

    Args:
        clips: the source.
        model: turns texts into tokens, and numbers tasks.
        indices: which clips.
        positions: of each in the update.
        draws: of `draw_clip`, of each.
        config: the run.
        seeds: of the run, and the update.
    """
    latents, noises = [], []
    for index, draw in zip(indices, draws, strict=True):
        latents.append(_latents(clips, index, draw, config.sample_latents))
        noises.append(torch.randn(latents[-1].shape, generator=draw.generator))
    return DiffusionPass(
        ids=[clips.id(index) for index in indices],
        latents=nn.utils.rnn.pad_sequence(latents, batch_first=True),
        lengths=torch.tensor([len(one) for one in latents]),
        text=model.tokenize([clips.text(index) for index in indices]),
        task_ids=torch.tensor([model.config.task_id(clips.task(index)) for index in indices]),
        draws=FlowDraws(
            t=torch.tensor(even_times(seeds, positions)),
            z=nn.utils.rnn.pad_sequence(noises, batch_first=True),
            keep_condition=torch.tensor([draw.keep_condition for draw in draws]),
            prompt_frames=torch.tensor([draw.prompt_frames for draw in draws]),
        ),
        num_frames=sum(draw.num_learnt for draw in draws),
    )


def _latents(clips: TextClips, index: int, draw: ClipDraw, sampled: bool) -> Tensor:
    """Latents of a clip, or of a random part of it, ``[T, D]``."""
    made, count = clips.latents(index), draw.num_frames
    start = int(torch.randint(len(made.mean) - count + 1, (), generator=draw.generator))
    part = made.mean[start : start + count]
    if sampled and made.log_variance is not None:
        spread = (0.5 * made.log_variance[start : start + count]).exp()
        part = part + spread * torch.randn(part.shape, generator=draw.generator)
    return part
