"""Segments of long audio, and batches of segments of similar length.

A clip is cut into back-to-back pieces of 30 s without overlap, each encoded on its own, as the released tokenizer
does. Each segment is padded to a multiple of the token stride and no further, so no clip depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """One piece of a clip, encoded on its own."""

    waveform: Tensor  # float32 [N], 16 kHz, without padding
    clip: int  # index of the clip it belongs to
    num_tokens: int
    padded_samples: int  # what its features are computed from: a multiple of the token stride


def count_tokens(num_samples: int, segment_samples: int, token_stride: int) -> int:
    """Counts the tokens of a clip of ``num_samples`` at the model's own rate: each segment rounds up."""
    full, rest = divmod(num_samples, segment_samples)
    return full * -(-segment_samples // token_stride) + -(-rest // token_stride)


def make_segment(waveform: Tensor, clip: int, is_first: bool, segment_samples: int, token_stride: int) -> Segment:
    """Wraps one piece, at most ``segment_samples`` long.

    A clip shorter than a segment ends with its own reflection. The rest of a longer clip is followed by silence
    instead, because the reference pads it to the length of the full segments; one token of silence has the same
    effect, for neither the spectrogram's window nor the convolutions reach further.
    """
    tokens = -(-len(waveform) // token_stride)
    longest = -(-segment_samples // token_stride)
    padded_tokens = tokens if is_first else min(tokens + 1, longest)
    return Segment(waveform, clip, tokens, padded_tokens * token_stride)


def cut(waveform: Tensor, clip: int, segment_samples: int, token_stride: int) -> list[Segment]:
    """Cuts one clip ``[N]`` at the model's own rate; an empty clip has no segments."""
    if not len(waveform):
        return []
    parts = waveform.split(segment_samples)
    return [make_segment(part, clip, index == 0, segment_samples, token_stride) for index, part in enumerate(parts)]


def batches(lengths: Sequence[int], most: int, max_padding: float) -> Iterator[list[int]]:
    """Groups rows of similar length, longest first (so that running out of memory shows at once).

    Args:
        lengths: of the rows, in any order and unit.
        most: of that unit per batch, padding included; one row is always allowed.
        max_padding: share by which a batch's longest row may exceed any other; 0 puts only equal lengths together.

    Yields:
        Indices into ``lengths``; each index once.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch:
            longest = lengths[batch[0]]
            if longest > lengths[index] * (1 + max_padding) or longest * (len(batch) + 1) > most:
                yield batch
                batch = []
        batch.append(index)
    if batch:
        yield batch


def stack(segments: Sequence[Segment], device: torch.device) -> tuple[Tensor, list[int]]:
    """Pads waveforms with zeros to the longest padded length: ``[B, N]`` and each row's own padded length."""
    num_samples = [segment.padded_samples for segment in segments]
    waveforms_BN = torch.zeros(len(segments), max(num_samples), device=device)
    for row, segment in enumerate(segments):
        waveforms_BN[row, : len(segment.waveform)] = segment.waveform
    return waveforms_BN, num_samples
