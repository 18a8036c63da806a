"""Means of a tokenizer's gate: on kinds of sound, on noise, and on speech that music drowns little by little.

The gate of the SAE decides how much of a shallow layer's features returns. UniAudio-Token (arXiv:2605.31521) reports
that it is low on speech, high on music, and rises as music gets louder in a mix of both.
"""
# Shapes: N samples, T tokens.

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import torch
from torch import Tensor, nn

from audiollm.data.audio.degradation import mix_at_snr
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.encoder.segments import count_tokens
from audiollm.tokenizer.modeling import UniAudioTokenizer

DEFAULT_SNRS_DB = (-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)


def gate_by_token(audio_tokenizer: UniAudioTokenizer, waveform: Tensor) -> Tensor:
    """Mean gate over the channels, for each token of a clip.

    Args:
        audio_tokenizer: with a gate that reaches the codes.
        waveform: float ``[N]`` in [-1, 1] at 16 kHz.

    Returns:
        float32 ``[T]`` in (0, 1), on the CPU; empty for an empty clip.

    Raises:
        ValueError: if the tokenizer has no such gate.
    """
    if not has_gate(audio_tokenizer):
        raise ValueError("this tokenizer has no gate that reaches its codes; measure one that was trained with the SAE")
    assert audio_tokenizer.sae is not None
    gates: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        gates.append(output[1][0].float().mean(dim=-1).cpu())

    length = audio_tokenizer.config.segment_samples
    handle = audio_tokenizer.sae.register_forward_hook(keep)
    try:
        for segment in waveform.split(length) if len(waveform) else ():
            audio_tokenizer.encode(segment, SAMPLE_RATE)
            gates[-1] = gates[-1][: count_tokens(len(segment), length, audio_tokenizer.config.token_stride)]
    finally:
        handle.remove()
    return torch.cat(gates) if gates else torch.zeros(0)


def has_gate(audio_tokenizer: UniAudioTokenizer) -> bool:
    """Whether there is a gate and it reaches the codes."""
    return audio_tokenizer.sae is not None and audio_tokenizer.sae.use_gate and audio_tokenizer.sae_is_active


def mean_gate_of_clips(audio_tokenizer: UniAudioTokenizer, waveforms: Sequence[Tensor]) -> float | None:
    """Mean over clips of the mean gate of each: a long clip weighs no more than a short one. None without clips.

    Args:
        audio_tokenizer: as for `gate_by_token`.
        waveforms: float ``[N_i]`` at 16 kHz; empty ones do not count.
    """
    means = [float(gate_by_token(audio_tokenizer, waveform).mean()) for waveform in waveforms if len(waveform)]
    return sum(means) / len(means) if means else None


def mean_gate_of_mixes(
    audio_tokenizer: UniAudioTokenizer,
    speech: Sequence[Tensor],
    others: Sequence[Tensor],
    *,
    snrs_db: Sequence[float] = DEFAULT_SNRS_DB,
) -> dict[float, float]:
    """Mean gate of speech with something else in it, by how loud the speech is above it.

    Args:
        audio_tokenizer: as for `gate_by_token`.
        speech: float ``[N_i]`` at 16 kHz.
        others: what is mixed in, one after the other in turn; each is repeated or cut to the length of the speech.
        snrs_db: power of the speech over that of the other, in dB; the same pairs for each.

    Returns:
        Level → mean over the mixes; nothing if there is no speech or nothing to mix in.
    """
    pairs = list(zip(speech, cycle(others), strict=False))
    means = {
        snr_db: mean_gate_of_clips(audio_tokenizer, [mix_at_snr(clip, other, snr_db) for clip, other in pairs])
        for snr_db in snrs_db
    }
    return {snr_db: mean for snr_db, mean in means.items() if mean is not None}
