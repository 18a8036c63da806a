"""What the frozen encoders say of clips, and the features of the reasoning codes that are made of it."""
# Shapes: B clips, N samples, S vectors of 50 Hz, F frames of 25 Hz, T reasoning codes, D feature size.

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.tokenizer.reasoningcodec.reasoning import ReasoningBranch

Heard = tuple[Tensor, Tensor]
"""Of a clip: Whisper's vectors ``[S, D]``, and the music encoder's late ones ``[F, D]``."""


class Hearing:
    """Asks the frozen encoders, and remembers what they said.

    Args:
        codec: with all its encoders.
        max_bytes: what is kept of it in memory. 0: nothing, and clips of one length are heard together. Else each is
            heard by itself, so that an answer is the same to the bit whether it was kept or not.
    """

    def __init__(self, codec: ReasoningCodec, max_bytes: int = 0) -> None:
        codec.require_encoders()
        self._codec = codec
        self._room = max_bytes
        self._keeps = max_bytes > 0
        self._kept: dict[int, Heard] = {}

    @torch.no_grad()
    def __call__(self, waveforms: Sequence[Tensor], numbers: Sequence[int | None] | None = None) -> list[Heard]:
        """What is heard of clips.

        Args:
            waveforms: ``[N]`` each, at 24 kHz; filled up with silence to whole codes, as ``encode`` does it.
            numbers: of each clip, by which it is remembered; None: it is not.
        """
        numbers = [None] * len(waveforms) if numbers is None else numbers
        found: list[Heard | None] = [None if number is None else self._kept.get(number) for number in numbers]
        for group in self._groups([None if known else one for one, known in zip(waveforms, found, strict=True)]):
            whole_BN = torch.stack([self._whole(waveforms[place]) for place in group])
            whisper_BSD, semantic_BFD = self._codec.hear_for_reasoning(whole_BN.to(self._codec.device))
            for place, whisper_SD, semantic_FD in zip(group, whisper_BSD, semantic_BFD, strict=True):
                found[place] = (whisper_SD, semantic_FD)
                self._keep(numbers[place], whisper_SD, semantic_FD)
        return [one for one in found if one is not None]

    def _whole(self, waveform_N: Tensor) -> Tensor:
        return F.pad(waveform_N, (0, -len(waveform_N) % self._codec.config.whole_samples))

    def _groups(self, waveforms: Sequence[Tensor | None]) -> list[list[int]]:
        """Places of clips that are heard together."""
        by_length: dict[int, list[int]] = {}
        for place, waveform in enumerate(waveforms):
            if waveform is not None:
                by_length.setdefault(-(-len(waveform) // self._codec.config.whole_samples), []).append(place)
        groups = list(by_length.values())
        return [[place] for group in groups for place in group] if self._keeps else groups

    def _keep(self, number: int | None, *vectors: Tensor) -> None:
        size = sum(one.numel() * one.element_size() for one in vectors)
        if number is None or not self._keeps or size > self._room or number in self._kept:
            return
        self._room -= size
        whisper_SD, semantic_FD = vectors
        self._kept[number] = (whisper_SD.clone(), semantic_FD.clone())


def num_codes_of(num_samples: int, codec: ReasoningCodec) -> int:
    """Reasoning codes of a clip at 24 kHz, the last one of what is left of it and silence."""
    return -(-num_samples // codec.config.reasoning_samples)


def features_of(branch: ReasoningBranch, heard: Sequence[Heard], num_codes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What is quantized of clips, each as if it were alone.

    Args:
        branch: the reasoning branch.
        heard: of each clip.
        num_codes: of each clip.

    Returns:
        Features ``[B, T, D]``, zeros behind a clip's end, and a mask ``[B, T]``, bool.
    """
    rows: list[Tensor | None] = [None] * len(heard)
    by_length: dict[int, list[int]] = {}
    for place, (_, semantic_FD) in enumerate(heard):
        by_length.setdefault(len(semantic_FD), []).append(place)
    for group in by_length.values():
        made_BTD = branch(*(torch.stack([heard[place][stream] for place in group]) for stream in (0, 1)))
        for place, made_TD in zip(group, made_BTD, strict=True):
            rows[place] = made_TD[: num_codes[place]]
    features_BTD = torch.nn.utils.rnn.pad_sequence([row for row in rows if row is not None], batch_first=True)
    lengths_B1 = torch.tensor(num_codes, device=features_BTD.device)[:, None]
    return features_BTD, torch.arange(features_BTD.shape[1], device=features_BTD.device) < lengths_B1
