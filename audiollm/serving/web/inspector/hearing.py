"""What an audio tokenizer makes of a recording: codes on the time axis, beside what can be seen of the sound."""
# Shapes: N samples, M mel bins, F mel frames, T codes, G values of the gate, V codebook entries, D feature size.

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.serving.sound.uploads import Recording
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.configuration import HOP_LENGTH, SAMPLE_RATE
from audiollm.tokenizer.encoder.sae import gate_per_frame
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.signal.log_mel import LogMelFeatures
from audiollm.tokenizer.signal.resampling import resample

LONGEST_SECONDS = 30.0
"""What is looked at of a recording: one segment of the encoder, of which the gate is one curve."""
NUM_MEL_BINS = 80
_NUM_COLUMNS = 1200  # of the waveform's outline: more than a screen has, and less than a megabyte


@dataclass(frozen=True, eq=False)
class HeardRecording:
    """A recording as an audio tokenizer hears it."""

    seconds: float
    """Of the whole recording."""
    shown_seconds: float
    """Of its beginning, which the rest is about."""
    outline: Tensor
    """float32 ``[2, C]``: the lowest and the highest sample of each of C columns."""
    mel: Tensor
    """float32 ``[M, F]`` in [0, 1], from the quietest cell to the loudest."""
    codes: Tensor
    """int64 ``[T]``."""
    frame_rate: float
    """Codes per second, in Hz."""
    gate: Tensor | None
    """float32 ``[G]`` in [0, 1]: the SAE gate's mean over channels, evenly spaced; None without a gate."""
    no_gate: str
    """Why there is no gate; "" where there is one."""
    commonness: Tensor
    """float32 ``[T]`` in [0, 1]: how common each code is, 1 for the commonest."""
    commonness_of: str
    """Where that was counted: "checkpoint" (in training) or "recording" (this one)."""


def hear(tokenizer: AudioTokenizer, recording: Recording) -> HeardRecording:
    """Encodes the first 30 seconds of a recording, and draws them.

    Args:
        tokenizer: encodes it.
        recording: samples and their rate.

    Raises:
        ValueError: if the recording gives no code.
    """
    seconds = len(recording.waveform) / recording.sample_rate
    shown = beginning(recording)
    codes, gate, no_gate = _codes_and_gate(tokenizer, shown)
    if not len(codes):
        raise ValueError(f"the recording is {seconds:.3f} s long: too short to give a code")
    commonness, counted_in = _commonness(codes, training_counts(tokenizer))
    return HeardRecording(
        seconds=seconds,
        shown_seconds=shown.duration_seconds,
        outline=outline(shown.waveform),
        mel=mel_picture(shown),
        codes=codes,
        frame_rate=tokenizer.frame_rate,
        gate=gate,
        no_gate=no_gate,
        commonness=commonness,
        commonness_of=counted_in,
    )


def beginning(recording: Recording) -> Recording:
    """The part of a recording that is looked at."""
    return Recording(recording.waveform[: int(LONGEST_SECONDS * recording.sample_rate)], recording.sample_rate)


def outline(waveform_N: Tensor, num_columns: int = _NUM_COLUMNS) -> Tensor:
    """The lowest and the highest sample of each column, float32 ``[2, C]``; C is at most the number of samples."""
    columns = waveform_N.tensor_split(max(1, min(num_columns, len(waveform_N))))
    return torch.tensor([[float(one.min()) for one in columns], [float(one.max()) for one in columns]])


def mel_picture(recording: Recording) -> Tensor:
    """Whisper's log-mel spectrogram, float32 ``[M, F]``, 100 frames per second, from 0 (quietest) to 1."""
    waveform = resample(recording.waveform, recording.sample_rate, SAMPLE_RATE)
    length = max(-(-len(waveform) // HOP_LENGTH), 2) * HOP_LENGTH  # its windows are reflected at the ends
    mel_MF = LogMelFeatures(NUM_MEL_BINS)(F.pad(waveform, (0, length - len(waveform)))[None])[0]
    lowest, highest = mel_MF.aminmax()
    return (mel_MF - lowest) / (highest - lowest).clamp(min=1e-6)


def nearest_codes(
    tokenizer: AudioTokenizer, codes: Sequence[int], count: int = 6
) -> dict[int, list[tuple[int, float]]]:
    """The entries of the codebook that lie nearest to those of some codes, themselves left out.

    Args:
        tokenizer: has the codebook.
        codes: whose neighbours are asked for.
        count: how many of each.

    Returns:
        For each code, its neighbours with their distances, nearest first; nothing if the codebook cannot be seen.
    """
    if not isinstance(tokenizer, UniAudioTokenizer):
        return {}
    points_VD = tokenizer.codebook.points()
    asked = torch.tensor(sorted(set(codes)), dtype=torch.long, device=points_VD.device)
    distances = torch.cdist(points_VD[asked], points_VD)
    distances[torch.arange(len(asked)), asked] = torch.inf
    found = distances.topk(min(count, len(points_VD) - 1), largest=False)
    return {
        int(code): list(zip(indices.tolist(), values.tolist(), strict=True))
        for code, indices, values in zip(asked, found.indices, found.values, strict=True)
    }


def training_counts(tokenizer: AudioTokenizer) -> Tensor | None:
    """How often each code was seen in training, float32 ``[V]``; None where the checkpoint does not tell."""
    counts = getattr(getattr(tokenizer, "codebook", None), "ema_count", None)
    if counts is None or float(counts.max()) == float(counts.min()):  # without averages, or none were taken yet
        return None
    return counts.detach().float().cpu()


def _commonness(codes_T: Tensor, counts_V: Tensor | None) -> tuple[Tensor, str]:
    """By the logarithm of the counts: a few codes are so common that all others would look alike."""
    is_known = counts_V is not None
    counts = counts_V if counts_V is not None else torch.bincount(codes_T).float()
    logarithms = counts.clamp(min=0).log1p()
    return (logarithms / logarithms.max().clamp(min=1e-6))[codes_T], "checkpoint" if is_known else "recording"


class _Listening(nn.Module):
    """The SAE, and what its gate said last."""

    def __init__(self, sae: nn.Module) -> None:
        super().__init__()
        self.sae = sae
        self.gate_G = torch.zeros(0)

    def forward(self, deep_BTD: Tensor, shallow_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        fused_BTD, gate_BTD = self.sae(deep_BTD, shallow_BTD)
        self.gate_G = gate_per_frame(gate_BTD, fused_BTD)[0].cpu()
        return fused_BTD, gate_BTD


@torch.no_grad()
def _codes_and_gate(tokenizer: AudioTokenizer, recording: Recording) -> tuple[Tensor, Tensor | None, str]:
    waveform, rate = recording
    if not isinstance(tokenizer, UniAudioTokenizer):
        return tokenizer.encode([waveform], rate)[0][0], None, "this audio tokenizer has no SAE"
    if tokenizer.sae is None or not tokenizer.sae_is_active:
        return tokenizer.encode([waveform], rate)[0][0], None, "this audio tokenizer has no SAE in front of its codes"
    if not tokenizer.sae.use_gate:
        return tokenizer.encode([waveform], rate)[0][0], None, "the SAE of this audio tokenizer has no gate"
    # A view of the same weights: other threads encode by the tokenizer itself meanwhile.
    view: Any = copy.copy(tokenizer)
    listening = _Listening(tokenizer.sae)
    listening.training = False
    view._modules = {**tokenizer._modules, "sae": listening}
    view._compiled = None
    codes = view.encode([waveform], rate)[0][0]
    # The last frames may be those of padding; the gate has a whole number of values for each code.
    per_code = max(1, len(listening.gate_G) // max(1, len(codes)))
    return codes, listening.gate_G[: per_code * len(codes)], ""
