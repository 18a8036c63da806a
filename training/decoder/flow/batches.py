"""Batches of the flow model's training: clips of one pass, read, cut, padded, and everything random drawn.

Everything random of a clip (time, noise, prompt, whether its condition is dropped) comes from a generator of its own.
So an update does not depend on how many processes share it, how it is cut into passes, or where a run was interrupted.
"""
# Shapes: B clips, T codes, M mel frames, S speaker size.

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from audiollm.tokenizer.decoder.flow.matching import MAX_PROMPT_SHARE, FlowDraws
from audiollm.training.decoder.base import even_times
from audiollm.training.decoder.shards import DecoderItems
from audiollm.training.recordings.segments import clip_generator


@dataclass(frozen=True)
class FlowPass:
    """The clips of one forward and backward pass, right-padded."""

    ids: list[str]
    codes: Tensor  # [B, T] int64
    code_lengths: Tensor  # [B] int64
    mel: Tensor  # [B, num_mels, M] float32
    mel_lengths: Tensor  # [B] int64
    speaker: Tensor  # [B, S] float32; zeros are the neutral voice
    draws: FlowDraws

    @property
    def num_frames(self) -> int:
        """Mel frames without padding."""
        return int(self.mel_lengths.sum())

    def inputs(self, device: torch.device) -> dict[str, Any]:
        """Arguments of `FlowModel.loss`."""
        draws = FlowDraws(**{f.name: getattr(self.draws, f.name).to(device) for f in dataclasses.fields(self.draws)})
        names = ("codes", "code_lengths", "mel", "mel_lengths", "speaker")
        return {name: getattr(self, name).to(device) for name in names} | {"draws": draws}


def make_pass(
    items: DecoderItems,
    clips: Sequence[int],
    positions: Sequence[int],
    *,
    seeds: tuple[int, int],
    max_codes: int,
    guidance_dropout: float,
    speaker_size: int,
) -> FlowPass:
    """Reads clips, cuts long ones, pads all to the longest and draws what is random.

    Args:
        items: the clips' source.
        clips: which ones.
        positions: position of each clip in the update, over which times are spread evenly.
        seeds: of the run, and the update.
        max_codes: of longer clips a random piece of so many codes is taken.
        guidance_dropout: probability of training a clip without its condition.
        speaker_size: S.

    Raises:
        ValueError: naming a clip whose speaker vector has another size.
    """
    codes, mels, speakers = [], [], []
    noises, keeps, prompts = [], [], []
    times = even_times(seeds, positions)
    for clip, position in zip(clips, positions, strict=True):
        generator = clip_generator(*seeds, position)
        clip_codes, mel = _cut(items, clip, max_codes, generator)
        codes.append(clip_codes)
        mels.append(mel)
        speakers.append(_speaker(items, clip, speaker_size))
        num_frames = mel.shape[1]
        noises.append(torch.randn(mel.shape, generator=generator))
        # All three are drawn, used or not, so that a setting changes none of the other draws.
        keep, prompt, length = torch.rand(3, generator=generator).tolist()
        keeps.append(keep >= guidance_dropout)
        # Half of the clips begin with their true mel: the model must decode with a prompt and without one.
        prompts.append(int(length * MAX_PROMPT_SHARE * num_frames) if prompt < 0.5 else 0)
    return FlowPass(
        ids=[items.id(clip) for clip in clips],
        codes=nn.utils.rnn.pad_sequence(codes, batch_first=True),
        code_lengths=torch.tensor([len(one) for one in codes]),
        mel=_pad_frames(mels),
        mel_lengths=torch.tensor([mel.shape[1] for mel in mels]),
        speaker=torch.stack(speakers),
        draws=FlowDraws(
            t=torch.tensor(times), z=_pad_frames(noises), keep_condition=torch.tensor(keeps),
            prompt_frames=torch.tensor(prompts),
        ),
    )  # fmt: skip


def _cut(items: DecoderItems, clip: int, max_codes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Codes and mel of a clip, or of a random piece of it."""
    codes, mel = items.codes(clip), items.mel(clip)
    if len(codes) <= max_codes:
        return codes, mel
    num_mel_frames = items.clip_format.num_mel_frames
    start = int(torch.randint(len(codes) - max_codes + 1, (), generator=generator))
    first, count = num_mel_frames(start), num_mel_frames(max_codes)
    return codes[start : start + max_codes], mel[:, first : first + count]


def _speaker(items: DecoderItems, clip: int, size: int) -> Tensor:
    vector = items.speaker(clip)
    if vector is None:
        return torch.zeros(size)
    if len(vector) != size:
        raise ValueError(
            f"{items.where(clip)}: speaker_vector holds {len(vector)} numbers, but decoder.flow.speaker_size={size}"
        )
    return vector


def _pad_frames(rows: Sequence[Tensor]) -> Tensor:
    """Stacks ``[C, M_i]`` as ``[B, C, M]``."""
    padded = rows[0].new_zeros(len(rows), rows[0].shape[0], max(row.shape[1] for row in rows))
    for index, row in enumerate(rows):
        padded[index, :, : row.shape[1]] = row
    return padded
